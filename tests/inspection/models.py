"""Small models whose critic is known."""

import torch as th
from sb3_contrib.common.torch_layers import BatchRenorm


def small():
    """Settings that every off-policy algorithm takes: a fresh one each time, since SAC writes into policy_kwargs."""
    return {
        "buffer_size": 500,
        "learning_starts": 20,
        "batch_size": 32,
        "policy_kwargs": {"net_arch": [16]},
        "seed": 0,
        "device": "cpu",
    }


def linear_critic(critic, slopes):
    """Let every Q network of one critic, in evaluation mode, be ``slopes @ action``, whatever the observation."""
    for q_network in critic.q_networks:
        first, *middle, last = [layer for layer in q_network if isinstance(layer, th.nn.Linear)]
        features_dim = first.in_features - len(slopes)
        with th.no_grad():
            for parameter in q_network.parameters():
                parameter.zero_()
            for norm in (layer for layer in q_network if isinstance(layer, BatchRenorm)):
                # the identity
                norm.ra_mean.zero_()
                norm.ra_var.fill_(1.0)
                norm.scale.fill_((1.0 + norm.eps) ** 0.5)
            # relu(z) - relu(-z) = z through every layer
            for j, slope in enumerate(slopes):
                first.weight[2 * j, features_dim + j], first.weight[2 * j + 1, features_dim + j] = slope, -slope
            for layer in middle:
                layer.weight.copy_(th.eye(layer.out_features))
            last.weight[0, : 2 * len(slopes)] = th.tensor([1.0, -1.0] * len(slopes))


def with_linear_critics(model, slopes):
    """Let every Q network of the model, in evaluation mode, be ``slopes @ action``, whatever the observation."""
    for critic in {model.critic, getattr(model.policy, "law_critic", model.critic)}:
        linear_critic(critic, slopes)
    return model
