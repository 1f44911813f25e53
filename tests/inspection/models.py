"""Small models whose critic is known."""

import torch as th


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


def linear_critic(model, slopes):
    """Let every Q network of the model be ``slopes @ action``, whatever the observation."""
    features_dim = model.critic.q_networks[0][0].in_features - len(slopes)
    for q_network in model.critic.q_networks:
        first, last = q_network[0], q_network[-1]
        with th.no_grad():
            for parameter in q_network.parameters():
                parameter.zero_()
            # relu(z) - relu(-z) = z through every layer
            for j, slope in enumerate(slopes):
                first.weight[2 * j, features_dim + j], first.weight[2 * j + 1, features_dim + j] = slope, -slope
            for layer in q_network[2:-1:2]:
                layer.weight.copy_(th.eye(layer.out_features))
            last.weight[0, : 2 * len(slopes)] = th.tensor([1.0, -1.0] * len(slopes))
    return model
