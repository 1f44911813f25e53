"""
Which good action does a sample stand for? A learned draw from the posterior p(a | x) of exp(Q / temperature) on the box.

A diffusion that regresses on a critic which changes with every update learns the average of the laws that it has seen, which
is wide. The Gaussian that is fitted here by gradients of Q averages gradients instead of laws, so it stays narrow, and since
it starts from a sample, it stays near the mode that the sample has chosen.
"""

import math
from collections.abc import Sequence

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_dqs.checks import check_positive
from sb3_dqs.diffusion.choice import Candidates
from sb3_dqs.diffusion.estimators import QFunction, Regression, q_values_and_gradients
from sb3_dqs.diffusion.networks import (
    FirstLayer,
    apply_modules,
    has_plain_first_layer,
    mlp,
    repeat_rows,
    without_bookkeeping,
)
from sb3_dqs.diffusion.reflection import reflect, reflected_normal_log_density

# Of the fitted Gaussian, action units; the largest is 1, which is nearly uniform on the box
LOG_SMALLEST_STD = -4.0
# The untrained one has a standard deviation of 0.62
UNTRAINED = -2.0

# Of the noise, action units
LARGEST_SIGMA = 1.0

# Of the loss, per squared action unit that a mean lies outside of the box
WALL_STIFFNESS = 50.0

# Of several draws that one is chosen among, this share is of the noise around the samples themselves, which reaches what the
# Gaussians, each fitted to one mode, leave out. Defensive mixtures: Hesterberg, 1995.
DEFENSIVE_SHARE = 0.25

LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)

# Of the quadrature of an entropy: places in the box, and quantiles of the noise
N_PLACES, N_QUANTILES = 64, 1024


class Refiner(nn.Module):
    """
    A last step of denoising by a draw from a learned posterior: a sample is read as a noisy action, and what it may stand for
    is drawn.

    The posterior of a noisy action x is p(a | x) proportional to exp(Q(a) / temperature) R(a, x), where R is normal noise that
    is reflected at the walls. A Gaussian g(a | x), reflected as well, is fitted to it by the reverse Kullback-Leibler
    divergence: narrow where the posterior has several modes. Single draws add noise to the sample first, a step of Gibbs
    sampling; candidates among which one is chosen take samples as they are, since noise carries some over to the next mode,
    and some of them are draws of the noise itself, which reach what no Gaussian covers.
    Source: the policy update of SAC, arXiv:1801.01290; ours: the condition on a sample of the diffusion.

    :param features_dim: size of the normalised observation features
    :param action_dim: size of the action
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each hidden layer
    :param relative_sigma: standard deviation of the noise > 0, in half-diagonals sqrt(action_dim) of the action box: modes lie
        further apart in more dimensions, and so far an action may move. In one dimension the noise is that of two, and it is
        at most 1.
    """

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        relative_sigma: float = 0.35,
    ):
        super().__init__()
        check_positive("relative_sigma", relative_sigma, "1 is the half-diagonal of the action box")
        # With less than that of two, even the posterior of a uniform law is narrow, and its entropy hardly tells a hot policy
        # from a cold one. With more than 1 mirrors leave no trace of the action: its correlation is exp(-(pi sigma)^2 / 8).
        self.sigma = min(relative_sigma * math.sqrt(max(action_dim, 2)), LARGEST_SIGMA)
        self.network = mlp(features_dim + action_dim, 2 * action_dim, net_arch, activation_fn)

    def entropy_range(self) -> tuple[float, float]:
        """
        :return: smallest and largest entropy that the refiner's draws can have, nats per action dimension: of the narrowest
            Gaussian, and of the posterior where Q does not matter
        """
        return LOG_ROOT_2_PI + 0.5 + LOG_SMALLEST_STD, self._uniform_entropy()

    def _uniform_entropy(self) -> float:
        places = (th.arange(N_PLACES, dtype=th.float64) + 0.5) / N_PLACES * 2 - 1
        quantiles = th.special.ndtri((th.arange(N_QUANTILES, dtype=th.float64) + 0.5) / N_QUANTILES)
        noisy_actions = places[:, None, None]
        draws = reflect(noisy_actions + self.sigma * quantiles[:, None])
        return LOG_ROOT_2_PI - reflected_normal_log_density(draws, noisy_actions, self.sigma).mean().item()

    def forward(self, features: th.Tensor, noisy_actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param features: (batch, features_dim), normalised
        :param noisy_actions: (batch, action_dim), in [-1, 1]
        :return: mean and standard deviation of g, each (batch, action_dim), action units
        """
        centre, std = self._fit(features, noisy_actions)
        return centre.clamp(-1.0, 1.0), std

    def _fit(self, features: th.Tensor, noisy_actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        centre, spread = self.network(th.cat([features, noisy_actions / self.sigma], dim=1)).chunk(2, dim=1)
        return centre, (LOG_SMALLEST_STD * (spread + UNTRAINED).sigmoid()).exp()

    def middles(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param features: (batch, features_dim), normalised
        :param actions: (n, batch, action_dim), in [-1, 1], samples of the diffusion
        :return: (n, batch, action_dim), in [-1, 1], the middle of what each of the actions themselves stands for
        """
        if not has_plain_first_layer(self.network):
            middle, _ = self(repeat_rows(features, actions.shape[0]), actions.flatten(end_dim=1))
            return middle.view(actions.shape)
        # condition_on_first_input() in rows and without bookkeeping, which takes a twentieth off the time of an action
        first_layer = FirstLayer.of(self.network, features)
        hidden = first_layer.features_part + F.linear(actions / self.sigma, first_layer.rest_weight)
        later_layers = map(without_bookkeeping, first_layer.later_modules)
        centre = apply_modules(later_layers, hidden.flatten(end_dim=1))[:, : actions.shape[-1]]
        return centre.clamp(-1.0, 1.0).view(actions.shape)

    def refine(self, features: th.Tensor, actions: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """
        :param features: (batch, features_dim), normalised
        :param actions: (batch, action_dim), in [-1, 1], samples of the diffusion
        :param noise: (batch, 2 * action_dim), standard normal: added to the actions, then of the draw
        :return: (batch, action_dim), in [-1, 1]
        """
        added, drawn = noise.chunk(2, dim=1)
        mean, std = self(features, reflect(th.add(actions, added, alpha=self.sigma)))
        return reflect(th.addcmul(mean, std, drawn))

    def candidates(self, features: th.Tensor, actions: th.Tensor, noise: th.Tensor) -> Candidates:
        """
        :param features: (batch, features_dim), normalised
        :param actions: (n, batch, action_dim), in [-1, 1], samples of the diffusion
        :param noise: (n, batch, action_dim), standard normal
        :return: a draw for each: of its Gaussian, or, for the last ``DEFENSIVE_SHARE``, which is none of up to three, of the
            noise around the sample itself
        """
        fitted, kept = actions.tensor_split([len(actions) - int(DEFENSIVE_SHARE * len(actions))])
        repeated = repeat_rows(features, len(fitted))
        mean, std = (values.view_as(fitted) for values in self(repeated, fitted.flatten(end_dim=1)))
        means, stds = th.cat([mean, kept]), th.cat([std, th.full_like(kept, self.sigma)])
        return Candidates(reflect(th.addcmul(means, stds, noise)), means, stds)

    def regress(
        self, features: th.Tensor, actions: th.Tensor, q_fn: QFunction, temperature: th.Tensor, noise: th.Tensor
    ) -> Regression:
        """
        Divergence of the Gaussian from the posterior, up to a constant, by one draw per point.

        :param features: (batch, features_dim), normalised, may require gradients
        :param actions: (batch, action_dim), in [-1, 1]
        :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch) of the same observations, differentiable
        :param temperature: scalar > 0, in units of Q
        :param noise: (batch, 2 * action_dim), standard normal
        :return: loss, and the measure ``policy_entropy``: that of g, nats per action dimension
        """
        added, drawn = noise.chunk(2, dim=1)
        noisy_actions = reflect(th.add(actions, added, alpha=self.sigma))
        centre, std = self._fit(features, noisy_actions)
        mean = centre.clamp(-1.0, 1.0)
        refined = reflect(th.addcmul(mean, std, drawn))
        log_density = reflected_normal_log_density(refined, mean, std)
        log_noise = reflected_normal_log_density(refined, noisy_actions, self.sigma)
        _, gradients = q_values_and_gradients(q_fn, refined.unsqueeze(0))
        # of the same gradient as Q, which is asked without a graph through the critic's parameters
        linearised_q = (gradients.squeeze(0) * refined).sum(dim=1)
        # beyond a wall Q has no say, and this leads back: tanh would hold there what has once gone far
        excess = (centre - mean).square().sum(dim=1)
        loss = (log_density - log_noise - linearised_q / temperature + WALL_STIFFNESS * excess).mean()
        entropy = LOG_ROOT_2_PI - log_density.detach().mean() / actions.shape[1]
        return Regression(loss, {"policy_entropy": entropy})
