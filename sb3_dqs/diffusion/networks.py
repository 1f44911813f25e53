"""Which function does the network compute? A denoiser for the box setting, a score for the published one."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeGuard, TypeVar

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_dqs.diffusion.proposals import TruncatedNormalMean, truncated_normal_mean
from sb3_dqs.diffusion.special import OF_TORCH, available_operations

FloatOrTensor = TypeVar("FloatOrTensor", float, th.Tensor)


def mlp(input_dim: int, output_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module]) -> nn.Sequential:
    """
    Multi-layer perceptron with a linear output.

    :param input_dim: size of the input
    :param output_dim: size of the output
    :param net_arch: sizes of the hidden layers; empty for a linear map
    :param activation_fn: activation after each hidden layer
    :return: the network, whose first module is an ``nn.Linear``
    """
    layers: list[nn.Module] = []
    for hidden_dim in net_arch:
        layers += [nn.Linear(input_dim, hidden_dim), activation_fn()]
        input_dim = hidden_dim
    return nn.Sequential(*layers, nn.Linear(input_dim, output_dim))


class FirstLayer(NamedTuple):
    """
    First layer of a network over the concatenation [features, *rest], with the share of the features computed once.

    :param features_part: (batch, hidden_dim), bias included
    :param rest_weight: (hidden_dim, rest_dim), the columns of the weight that multiply the rest
    :param later_modules: all modules after the first layer
    """

    features_part: th.Tensor
    rest_weight: th.Tensor
    later_modules: list[nn.Module]

    @classmethod
    def of(cls, network: nn.Sequential, features: th.Tensor) -> "FirstLayer":
        """
        :param network: for which :func:`has_plain_first_layer` holds
        :param features: (batch, features_dim)
        """
        # not children(), which leaves out a module that is there twice
        first_layer, *later_modules = network
        assert isinstance(first_layer, nn.Linear)
        features_dim, weight = features.shape[-1], first_layer.weight
        return cls(F.linear(features, weight[:, :features_dim], first_layer.bias), weight[:, features_dim:], later_modules)


def condition_on_first_input(network: nn.Module, features: th.Tensor) -> Callable[..., th.Tensor]:
    """
    Bind the first part of a network's input, so that its share of the first layer is computed once for many calls.

    :param network: over the concatenation [features, *rest]
    :param features: (batch, features_dim)
    :return: function of the remaining input parts, each (..., batch, part_dim) or broadcastable to it, equal to
        ``network(cat([features, *rest]))``
    """
    if not has_plain_first_layer(network):
        return lambda *rest: network(_concatenated(features, *rest))
    first_layer = FirstLayer.of(network, features)

    def conditioned(*rest: th.Tensor) -> th.Tensor:
        hidden = first_layer.features_part
        start = 0
        for part in rest:
            end = start + part.shape[-1]
            hidden = hidden + F.linear(part, first_layer.rest_weight[:, start:end])
            start = end
        return apply_modules(first_layer.later_modules, hidden)

    return conditioned


def has_plain_first_layer(network: nn.Module) -> TypeGuard[nn.Sequential]:
    """
    :param network: of :func:`mlp`, perhaps edited since
    :return: whether its first layer may be computed in parts, by its weights: it is an ``nn.Linear``, not quantised, and
        without hooks, as pruning and spectral norm have them
    """
    if not is_plain_sequential(network):
        return False
    first_layer = next(iter(network), None)
    return type(first_layer) is nn.Linear and not has_hooks(first_layer)


def is_plain_sequential(network: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether calling the network does no more than calling its modules, one after the other."""
    return type(network) is nn.Sequential and not has_hooks(network)


def _concatenated(*parts: th.Tensor) -> th.Tensor:
    shape = th.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return th.cat([part.expand(*shape, -1) for part in parts], dim=-1)


def repeat_rows(values: th.Tensor, n: int) -> th.Tensor:
    """
    :param values: (batch, ...)
    :param n: number of copies
    :return: (n * batch, ...): the whole batch, n times over
    """
    return values.expand(n, *values.shape).flatten(end_dim=1)


def apply_modules(modules: Iterable[Callable[[th.Tensor], th.Tensor]], hidden: th.Tensor) -> th.Tensor:
    for module in modules:
        hidden = module(hidden)
    return hidden


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module, or its backward pass, does something else than its class says."""
    own = vars(module)  # as attributes they take three times as long to look up
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks or "forward" in own)


def without_bookkeeping(module: nn.Module) -> Callable[[th.Tensor], th.Tensor]:
    """The function that a plain module computes: for one row, calling the module itself takes as long as computing it."""
    if has_hooks(module):
        return module
    if type(module) is nn.Linear:
        # attributes that are parameters take as long to look up as a small layer to compute
        return functools.partial(F.linear, **module._parameters)  # type: ignore[arg-type]
    return th.relu_ if type(module) is nn.ReLU else module


def clip_finite(values: th.Tensor, limit: float) -> th.Tensor:
    """
    :param values: any shape
    :param limit: > 0
    :return: same shape, in [-limit, limit]; NaN where a value is infinite, which would otherwise look like an ordinary one
    """
    return values.clamp(-limit, limit) + (values - values)


class RunningNormalization(nn.Module):
    """
    Features in units of their standard deviation, around their mean, by running statistics.

    Averages are plain over the first 1 / ``min_rate`` observed batches, then exponential, since learned features move.

    :param features_dim: size of the features
    :param min_rate: smallest share of a new batch in the statistics, in (0, 1]
    :param clip: largest size of a normalised feature: one that was constant so far may jump
    :param eps: added to the variance
    """

    mean: th.Tensor
    variance: th.Tensor
    n_batches: th.Tensor

    def __init__(self, features_dim: int, min_rate: float = 1e-3, clip: float = 10.0, eps: float = 1e-6):
        super().__init__()
        self.min_rate, self.clip, self.eps = min_rate, clip, eps
        # in float64: features far from zero would lose their variance to rounding
        self.register_buffer("mean", th.zeros(features_dim, dtype=th.float64))
        self.register_buffer("variance", th.ones(features_dim, dtype=th.float64))
        self.register_buffer("n_batches", th.zeros(()))

    @th.no_grad()
    def observe(self, features: th.Tensor) -> None:
        """
        :param features: (batch, features_dim)
        """
        self.n_batches += 1
        rate = (1 / self.n_batches).clamp(min=self.min_rate)
        variance, mean = th.var_mean(features.double(), dim=0, correction=0)
        shift = mean - self.mean
        # variance of a mixture: the mean of the variances, and the variance of the means
        self.variance += rate * (variance - self.variance + (1 - rate) * shift**2)
        self.mean += rate * shift

    def forward(self, features: th.Tensor) -> th.Tensor:
        """
        :param features: (batch, features_dim)
        :return: (batch, features_dim), in [-clip, clip]; NaN where a feature is infinite, so that it shows in the action
        """
        scale = (self.variance + self.eps).rsqrt().to(features.dtype)
        return clip_finite((features - self.mean.to(features.dtype)) * scale, self.clip)


class PreconditionedDenoiser(nn.Module):
    """
    D(x, sigma, features) = U(x, sigma) + c_out F(features, c_in x, embedding(sigma)), an estimate of E[a | x, s].

    U is the exact denoiser of the uniform law on the box, so the network has to learn only what Q adds: an untrained
    diffusion is nearly uniform, and the walls, too sharp at small sigma for a network, are exact. c_in and c_out keep the
    network's input, output and training target of unit size at every noise level. The noise level enters through the
    first sines and cosines of ln sigma.
    Source: EDM, arXiv:2206.00364, preconditioning; our deviations: U takes the place of c_skip x, the denoiser of a
    Gaussian law, and Fourier features of the position of ln sigma between its ends.

    :param features_dim: size of the observation features
    :param action_dim: size of the action
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each hidden layer
    :param sigma_min: smallest noise level, action units
    :param sigma_max: largest noise level, action units
    :param sigma_data: expected standard deviation of an action coordinate, action units
    :param levels: noise levels of the sampler, action units
    :param n_frequencies: number of sines (and of cosines) of the noise embedding
    """

    frequencies: th.Tensor
    level_embeddings: th.Tensor

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        sigma_min: float,
        sigma_max: float,
        sigma_data: float,
        levels: Sequence[float] = (),
        n_frequencies: int = 8,
    ):
        super().__init__()
        self.action_dim = action_dim
        self.log_sigma_min = math.log(sigma_min)
        self.log_sigma_range = math.log(sigma_max / sigma_min)
        self.sigma_data = sigma_data
        self.register_buffer("frequencies", math.pi * th.arange(1, n_frequencies + 1), persistent=False)
        self.levels = levels
        self.register_buffer("level_embeddings", self.embed(th.tensor(levels).unsqueeze(1)), persistent=False)
        self.network = mlp(features_dim + action_dim + 2 * n_frequencies, action_dim, net_arch, activation_fn)
        self.uniform_denoisers = nn.ModuleList(TruncatedNormalMean(sigma) for sigma in levels)

    def c_out(self, sigma: FloatOrTensor) -> FloatOrTensor:
        return sigma * self.sigma_data / (sigma**2 + self.sigma_data**2) ** 0.5

    def c_in(self, sigma: FloatOrTensor) -> FloatOrTensor:
        return 1 / (sigma**2 + self.sigma_data**2) ** 0.5

    def embed(self, sigma: th.Tensor) -> th.Tensor:
        """
        :param sigma: (..., 1), standard deviation > 0, action units
        :return: (..., 2 n_frequencies), in [-1, 1]
        """
        phases = (th.log(sigma) - self.log_sigma_min) / self.log_sigma_range * self.frequencies
        return th.cat([phases.sin(), phases.cos()], dim=-1)

    def condition(self, features: th.Tensor) -> Callable[[th.Tensor, th.Tensor], th.Tensor]:
        """
        :param features: (batch, features_dim)
        :return: the denoiser of these observations: maps noisy actions (..., batch, action_dim) and sigma (batch, 1)
            or (1, 1) to E[a | x], (..., batch, action_dim)
        """
        raw_output = condition_on_first_input(self.network, features)

        def denoise(noisy_actions: th.Tensor, sigma: th.Tensor) -> th.Tensor:
            output = raw_output(self.c_in(sigma) * noisy_actions, self.embed(sigma))
            return truncated_normal_mean(noisy_actions, sigma) + self.c_out(sigma) * output

        return denoise

    def condition_on_levels(self, features: th.Tensor, n_samples: int = 1) -> Callable[[th.Tensor, float], th.Tensor]:
        """
        :meth:`condition` for the noise levels of a sampler: what a level needs is computed beforehand, for all at once.

        :param features: (batch, features_dim)
        :param n_samples: of each observation
        :return: the denoiser of these observations: maps noisy actions (n_samples * batch, action_dim), the whole
            batch n_samples times over, and one of the levels to E[a | x], of the same shape
        """
        if not has_plain_first_layer(self.network):
            denoise_at = self.condition(repeat_rows(features, n_samples))
            return lambda noisy_actions, sigma: denoise_at(noisy_actions, noisy_actions.new_full((1, 1), sigma))
        features_part, rest_weight, later_modules = FirstLayer.of(self.network, features)
        later_layers = [without_bookkeeping(module) for module in later_modules]
        action_weight, embedding_weight = rest_weight[:, : self.action_dim].t(), rest_weight[:, self.action_dim :]
        level_parts = F.linear(self.level_embeddings, embedding_weight).unsqueeze(1)
        constant_parts = (features_part + level_parts).unbind()
        at_level = dict(zip(self.levels, zip(constant_parts, self.uniform_denoisers, strict=True), strict=True))
        operations = available_operations()
        # addmm() repeats a single row itself; what is exported is for any number of rows
        is_broadcast = n_samples == 1 or (operations is OF_TORCH and len(features) == 1)

        def denoise(noisy_actions: th.Tensor, sigma: float) -> th.Tensor:
            constant_part, uniform_denoiser = at_level[sigma]
            if not is_broadcast:
                constant_part = repeat_rows(constant_part, n_samples)
            hidden = th.addmm(constant_part, noisy_actions, action_weight, alpha=self.c_in(sigma))
            output = apply_modules(later_layers, hidden)
            return uniform_denoiser(noisy_actions, operations).add_(output, alpha=self.c_out(sigma))

        return denoise


class ScoreNetwork(nn.Module):
    """
    s(t, x, features, temperature), an estimate of grad_x log p_t(x | s): the published score network.

    Source: DQS, arXiv:2410.01312: a plain network fed time embedding, noisy action, observation and temperature.

    :param features_dim: size of the observation features
    :param action_dim: size of the action
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each hidden layer
    :param embedding_dim: size of the sinusoidal embedding of time, even
    """

    frequencies: th.Tensor

    # Wave numbers of the embedding run from 1 to 1e-4 over 1000 t, as in the transformer's and in DDPM's (arXiv:2006.11239)
    TIME_SCALE = 1000.0
    MAX_PERIOD = 10_000.0

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        embedding_dim: int = 128,
    ):
        super().__init__()
        exponents = th.arange(embedding_dim // 2) / (embedding_dim // 2)
        self.register_buffer("frequencies", self.TIME_SCALE * self.MAX_PERIOD**-exponents, persistent=False)
        self.network = mlp(features_dim + action_dim + embedding_dim + 1, action_dim, net_arch, activation_fn)

    def condition(self, features: th.Tensor, temperature: th.Tensor) -> Callable[[th.Tensor, th.Tensor], th.Tensor]:
        """
        :param features: (batch, features_dim)
        :param temperature: scalar, in units of Q
        :return: the score of these observations: maps noisy actions (batch, action_dim) and time (batch, 1) or (1, 1) to
            the score, (batch, action_dim)
        """
        raw_output = condition_on_first_input(self.network, features)

        def score(noisy_actions: th.Tensor, time: th.Tensor) -> th.Tensor:
            phases = time * self.frequencies
            embedding = th.cat([phases.sin(), phases.cos()], dim=-1)
            return raw_output(noisy_actions, embedding, temperature.reshape(1, 1))

        return score
