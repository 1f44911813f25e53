"""How are values learned and asked? Values of transitions, TD target and loss, and the critic as a function of the action."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch as th
from sb3_contrib.common.torch_layers import BatchRenorm, BatchRenorm1d
from sb3_contrib.crossq.policies import CrossQCritic
from stable_baselines3.common.policies import BaseModel, ContinuousCritic
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from sb3_dqs.diffusion.estimators import QFunction
from sb3_dqs.diffusion.networks import apply_modules, has_hooks, is_plain_sequential, repeat_rows, without_bookkeeping

Batch = ReplayBufferSamples | DictReplayBufferSamples

# Optimizers that ``critic_betas`` are for; they can treat all parameters in one pass over them
ADAMS = (th.optim.Adam, th.optim.AdamW)

# These critics put every row of [features, action] through each of ``q_networks``, so features can be computed once.
FORWARDS_BY_Q_NETWORKS = (ContinuousCritic.forward, CrossQCritic.forward)


def host_would_wait(values: th.Tensor) -> bool:
    """
    :param values: on any device
    :return: whether to look at them would stop the host until the device has caught up
    """
    return values.is_cuda


class NativeBatchRenorm1d(BatchRenorm1d):
    """
    Batch renormalisation by torch's own batch normalisation, which does in one pass what takes sb3-contrib's module a dozen.

    Batch renormalisation is r times the normalised batch, plus d, where r and d, constants for the gradient, lead over to the
    running statistics: so r and d go into scale and bias.
    Source: arXiv:1702.03275, as in sb3-contrib; our deviation from the latter: the batch is divided by its own standard
    deviation, and not by the estimate of that of its law, which is larger by the share 1 / (2 batch size).
    """

    ra_mean: th.Tensor
    ra_var: th.Tensor
    steps: th.Tensor

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: (batch, num_features), at least two rows in training mode
        :return: normalised, of the same shape
        """
        scale: th.Tensor = self.scale if self.affine else th.ones_like(self.ra_mean)
        bias: th.Tensor = self.bias if self.affine else th.zeros_like(self.ra_mean)
        if self.training:
            is_warm = self.steps > self.warmup_steps
            if host_would_wait(is_warm) or is_warm:
                r, d = self._corrections(x.detach())
                r, d = th.where(is_warm, r, 1.0), th.where(is_warm, d, 0.0)
                scale, bias = scale * r, bias + scale * d
            self.steps += 1
        return F.batch_norm(x, self.ra_mean, self.ra_var, scale, bias, self.training, self.momentum, self.eps)

    def in_evaluation(self) -> Callable[[th.Tensor], th.Tensor]:
        """What :meth:`forward` computes in evaluation mode, with nothing left to look up."""
        # attributes that are parameters or buffers take as long to look up as the layer to compute
        parameters, buffers, eps = self._parameters, self._buffers, self.eps
        scale, bias, mean, variance = (parameters.get("scale"), parameters.get("bias"), buffers["ra_mean"], buffers["ra_var"])
        return lambda x: th.batch_norm(x, scale, bias, mean, variance, False, 0.0, eps, True)  # type: ignore[arg-type]

    def _corrections(self, x: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        running_std = (self.ra_var + self.eps).sqrt()
        r = ((x.var(dim=0) + self.eps).sqrt() / running_std).clamp(1 / self.rmax, self.rmax)
        d = ((x.mean(dim=0) - self.ra_mean) / running_std).clamp(-self.dmax, self.dmax)
        return r, d


# What is computed once for all calls takes as long as one call itself for one observation; from so many on, it does not show
MIN_ROWS_TO_PREPARE = 16

# In evaluation mode these are affine; what is derived from them need not be
FOLDED = (BatchRenorm1d, NativeBatchRenorm1d)


class BatchRenormCritic(CrossQCritic):
    """
    The critic of sb3-contrib's CrossQ, arXiv:1902.05605: batch renormalisation before each linear layer, faster.

    Arguments are those of sb3-contrib's ``CrossQCritic``; in a policy, its own go into ``critic_kwargs``.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for network in self.q_networks:
            for name, layer in network.named_children():
                if isinstance(layer, BatchRenorm1d):
                    arguments = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.warmup_steps)
                    setattr(network, name, NativeBatchRenorm1d(*arguments))


def observations_to_go_on_from(batch: Batch) -> PyTorchObs:
    """
    Next observations, but for terminal rows the observations themselves.

    No TD target asks for the value of a terminal observation, so the critic never learns one: neither the actor nor what
    steers the temperature may follow it there. With episodes of one step all rows are terminal.

    :param batch: of transitions
    :return: a batch of observations at which the critic learns its values
    """

    def choose(next_values: th.Tensor, values: th.Tensor) -> th.Tensor:
        is_terminal = batch.dones.bool().view(-1, *[1] * (values.dim() - 1))
        return th.where(is_terminal, values, next_values)

    return tree_map(choose, batch.next_observations, batch.observations)


def transition_values(
    critic: BaseModel,
    critic_target: BaseModel | None,
    observations: PyTorchObs,
    actions: th.Tensor,
    next_observations: PyTorchObs,
    next_actions: th.Tensor,
) -> tuple[Sequence[th.Tensor], th.Tensor]:
    """
    Values at both ends of transitions: with a target network, each end by its own network; without, in one joint pass, so
    that normalisation layers take their statistics from both laws of actions.

    Source of the joint pass: CrossQ, arXiv:1902.05605.

    :param critic: maps observations and actions to a tuple of Q values (batch, 1)
    :param critic_target: a slowly following copy, or None
    :param observations: of a batch
    :param actions: (batch, action_dim), in [-1, 1]
    :param next_observations: of the batch
    :param next_actions: (batch, action_dim), in [-1, 1]
    :return: Q values (batch, 1) of each of the ensemble at observations and actions; the smallest Q of the ensemble at next
        observations and actions, (batch, 1), detached
    """
    if critic_target is None:
        all_observations = tree_map(lambda first, second: th.cat([first, second]), observations, next_observations)
        all_q_values = critic(all_observations, th.cat([actions, next_actions]))
        q_values, next_q_values = zip(*(values.chunk(2) for values in all_q_values), strict=True)
    else:
        q_values = critic(observations, actions)
        with th.no_grad():
            next_q_values = critic_target(next_observations, next_actions)
    return q_values, smallest(next_q_values).detach()


def td_targets(rewards: th.Tensor, dones: th.Tensor, discounts: float | th.Tensor, next_q_values: th.Tensor) -> th.Tensor:
    """
    What Q of a transition should be: reward + discount * next Q, unless terminated. No entropy term: the paper's backup.

    :param rewards: (batch, 1)
    :param dones: (batch, 1), 1 where the next observation is terminal
    :param discounts: of the next value; (batch, 1) where it differs between rows, as with n-step returns
    :param next_q_values: (batch, 1)
    :return: (batch, 1)
    """
    return rewards + (1 - dones) * discounts * next_q_values


def td_loss(q_values: Sequence[th.Tensor], target_q_values: th.Tensor) -> th.Tensor:
    """
    :param q_values: (batch, 1) of each of the ensemble
    :param target_q_values: (batch, 1)
    :return: scalar, half the sum over the ensemble of mean squared errors
    """
    return 0.5 * th.stack([F.mse_loss(values, target_q_values) for values in q_values]).sum()


def smallest(q_values: Sequence[th.Tensor]) -> th.Tensor:
    """
    :param q_values: (batch, 1) of each of the ensemble
    :return: (batch, 1), the smallest of the ensemble
    """
    return functools.reduce(th.minimum, q_values)


@contextmanager
def evaluating(critic: BaseModel) -> Iterator[None]:
    """
    Ask the critic without teaching it: inside, statistics of normalisation layers stay as they are, and dropout is off.

    :param critic: in training mode or not, as it will be afterwards
    """
    if not critic.training:
        yield
        return
    critic.set_training_mode(False)
    try:
        yield
    finally:
        critic.set_training_mode(True)


def smallest_q(critic: BaseModel, observations: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    """
    The smallest of what ``critic(observations, actions)`` returns, at several actions per observation, for any critic.

    Where the critic's own forward pass puts [features, action] through ``q_networks``, the features are computed once.

    :param critic: maps observations and actions to a tuple of Q values (batch, 1); in evaluation mode, see :func:`evaluating`
    :param observations: of a batch
    :param actions: (n, batch, action_dim), in [-1, 1]
    :return: (n, batch)
    """
    if _asks_q_networks(critic):
        features = critic.extract_features(observations, critic.features_extractor)  # type: ignore[arg-type]
        return _smallest_q_of_features(critic, features, actions)
    repeated = tree_map(lambda values: repeat_rows(values, len(actions)), observations)
    return smallest(critic(repeated, actions.flatten(end_dim=1))).view(actions.shape[:-1])


def _smallest_q_of_features(critic: BaseModel, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
    inputs = _rows(features, actions)
    q_values = [apply_modules(_layers(network), inputs) for network in critic.q_networks]  # type: ignore[union-attr, index]
    return smallest(q_values).view(actions.shape[:-1])


def smallest_q_fn(critic: BaseModel, observations: PyTorchObs) -> QFunction:
    """
    The critic as a function of the action alone: the one place where SB3's networks meet the diffusion's mathematics.

    It is :func:`smallest_q` of these observations. Where the critic asks ``q_networks``, what does not depend on the action is
    computed once for all calls: the features, and, where observations are many, their share of a first linear layer, and batch
    renormalisation, which in evaluation mode is part of the linear layer behind it.

    :param critic: maps observations and actions to a tuple of Q values (batch, 1); in evaluation mode, see :func:`evaluating`
    :param observations: of a batch
    :return: maps actions (n, batch, action_dim) in [-1, 1] to the smallest Q of the ensemble, (n, batch); differentiable
        in the actions
    """
    if not _asks_q_networks(critic):
        return lambda actions: smallest_q(critic, observations, actions)
    with th.no_grad():
        features = critic.extract_features(observations, critic.features_extractor)  # type: ignore[arg-type]
        if len(features) < MIN_ROWS_TO_PREPARE:
            return lambda actions: _smallest_q_of_features(critic, features, actions)
        networks = [_conditioned(network, features) for network in critic.q_networks]  # type: ignore[union-attr, index]

    def q_fn(actions: th.Tensor) -> th.Tensor:
        return th.stack([network(actions) for network in networks]).amin(dim=0)

    return q_fn


def _asks_q_networks(critic: BaseModel) -> bool:
    # the object may have a forward pass of its own
    return getattr(critic.forward, "__func__", None) in FORWARDS_BY_Q_NETWORKS and not has_hooks(critic)


def _rows(features: th.Tensor, actions: th.Tensor) -> th.Tensor:
    """Inputs of a Q network, (n * batch, features_dim + action_dim), for actions (n, batch, action_dim)."""
    return th.cat([features.expand(*actions.shape[:-1], -1), actions], dim=-1).flatten(end_dim=-2)


def _layers(network: nn.Module) -> list[Callable[[th.Tensor], th.Tensor]]:
    """The layers of an ``nn.Sequential``, as cheap as they can be called; another kind of network as a whole."""
    if not is_plain_sequential(network):
        return [network]
    layers: list[Callable[[th.Tensor], th.Tensor]] = [
        layer.in_evaluation()
        if type(layer) is NativeBatchRenorm1d and not layer.training and not has_hooks(layer)
        else without_bookkeeping(layer)
        for layer in network
    ]
    # in place it would write into the inputs, which the networks share
    return [th.relu, *layers[1:]] if layers and layers[0] is th.relu_ else layers


class _Affine:
    def __init__(self, weight: th.Tensor, bias: th.Tensor | None):
        self.weight, self.bias = weight, bias

    def __call__(self, values: th.Tensor) -> th.Tensor:
        return F.linear(values, self.weight, self.bias)


def _conditioned(network: nn.Module, features: th.Tensor) -> QFunction:
    """The network on [features, actions] as a function of actions (n, batch, action_dim), to (n, batch)."""
    layers = _folded(network)
    first = layers[0] if layers else None
    if not isinstance(first, _Affine):
        return lambda actions: network(_rows(features, actions)).view(actions.shape[:-1])

    features_dim = features.shape[-1]
    features_part = F.linear(features, first.weight[:, :features_dim], first.bias)
    actions_weight = first.weight[:, features_dim:]

    def on_actions(actions: th.Tensor) -> th.Tensor:
        # the later layers get rows, as in the network itself
        hidden = (features_part + F.linear(actions, actions_weight)).flatten(end_dim=-2)
        return apply_modules(layers[1:], hidden).view(actions.shape[:-1])

    return on_actions


def _folded(network: nn.Module) -> list[Callable[[th.Tensor], th.Tensor]]:
    """
    The layers of an ``nn.Sequential``, where each batch renormalisation, which is affine in evaluation mode, is part of the
    linear layer behind it; none for another kind of network.
    """
    if not is_plain_sequential(network):
        return []
    layers: list[Callable[[th.Tensor], th.Tensor]] = []
    waiting: Any = None
    for layer in network:
        if type(layer) in FOLDED and waiting is None and not has_hooks(layer):
            waiting = layer
        elif type(layer) is nn.Linear and not has_hooks(layer):
            layers.append(_Affine(layer.weight, layer.bias) if waiting is None else _fold(waiting, layer))
            waiting = None
        else:
            layers += [layer] if waiting is None else [waiting, layer]
            waiting = None
    return layers if waiting is None else [*layers, waiting]


def _fold(norm: BatchRenorm, linear: nn.Linear) -> _Affine:
    scale = (norm.ra_var + norm.eps).rsqrt()  # type: ignore[operator, union-attr]
    shift = -norm.ra_mean * scale  # type: ignore[operator]
    if norm.affine:
        scale, shift = scale * norm.scale, shift * norm.scale + norm.bias
    weight = linear.weight * scale
    bias = F.linear(shift, linear.weight, linear.bias)
    return _Affine(weight, bias)
