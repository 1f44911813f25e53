"""
How are samples brought nearer to their law? By random steps that leave exp(Q / temperature) on the box [-1, 1]^d as it is.

An actor that trails its critic, a coarse grid of noise levels, a biased regression: all are mended as far as the steps reach.
They are local: no weight moves between modes that are farther apart than the noise.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch.nn import functional as F

from sb3_dqs.checks import InputError, as_integer, check_positive, hint_at_text, is_finite_number
from sb3_dqs.diffusion.choice import choose
from sb3_dqs.diffusion.estimators import QFunction, q_values_and_gradients
from sb3_dqs.diffusion.reflection import reflect, reflected_normal_log_density

# Of guided proposals, in standard deviations of the noise: their own, and how far uphill they are moved, per coordinate
GUIDE_WIDTH = 0.5
GUIDE_SHIFT = 1.5


class CorrectorNoise(NamedTuple):
    """
    What one round draws.

    :param noise: (n_rows, batch, action_dim), standard normal: of the noisy action, then of the proposals, one row more where
        some are guided
    :param uniforms: (batch,), uniform in [0, 1], for the choice
    """

    noise: th.Tensor
    uniforms: th.Tensor

    @classmethod
    def of(cls, normals: th.Tensor, action_dim: int) -> "CorrectorNoise":
        """
        :param normals: (batch, n_rows * action_dim + 1), standard normal: rows for the action, two where proposals are
            guided, and for each proposal; where they are correlated over time, so are the actions
        :param action_dim: size of the action
        """
        noise, choice = normals[:, :-1], normals[:, -1]
        return cls(noise.unflatten(1, (-1, action_dim)).transpose(0, 1), th.special.ndtr(choice))


def particle_gibbs(
    q_fn: QFunction, actions: th.Tensor, sigma: float, temperature: float | th.Tensor, noise: CorrectorNoise
) -> th.Tensor:
    """
    One round of particle Gibbs on the noise: x is the action with noise, the candidates are the action and proposals, x with
    noise, and one of them is chosen with probability proportional to exp(Q / temperature).

    The noise is normal and reflected at the walls, so that its density from a to x is that from x to a. On the joint law
    exp(Q(a) / temperature) R(a, x) drawing x is a Gibbs step, and the choice one of iterated sampling importance resampling
    whose proposals have just the density R(a, x): exp(Q / temperature) on the box is invariant, for any number of proposals
    and any sigma.
    Source: i-SIR, Andrieu, Lee and Vihola, arXiv:1312.6432; ours: the reflected noise.

    :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch)
    :param actions: (batch, action_dim), in [-1, 1]
    :param sigma: standard deviation of the noise > 0, action units: how far an action may move
    :param temperature: > 0, in units of Q
    :param noise: independent of the actions
    :return: (batch, action_dim), in [-1, 1]
    """
    noisy_actions = reflect(th.add(actions, noise.noise[0], alpha=sigma))
    proposals = reflect(th.add(noisy_actions, noise.noise[1:], alpha=sigma))
    candidates = th.cat([actions.unsqueeze(0), proposals])
    return choose(candidates, q_fn(candidates) / temperature, noise.uniforms)


def guided_particle_gibbs(
    q_fn: QFunction,
    actions: th.Tensor,
    sigma: float,
    temperature: float | th.Tensor,
    noise: CorrectorNoise,
    places: th.Tensor,
    n_guided: int,
) -> th.Tensor:
    """
    The same with guided proposals, drawn around a point uphill of x, along the gradient of Q there, beside the free ones.

    The choice leaves exp(Q / temperature) as it is whatever law the proposals are drawn from, as long as that depends on x
    alone: weights are those of the mixture, and the action takes the place of a candidate of either kind with the
    probability that it is one.
    Source: balance heuristic, Veach and Guibas, 1995, beside those of :func:`particle_gibbs`; ours: the guide.

    :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch), differentiable
    :param actions: (batch, action_dim), in [-1, 1]
    :param sigma: standard deviation of the noise > 0, action units
    :param temperature: > 0, in units of Q
    :param noise: independent of the actions, with one row of noise more than there are proposals and the noisy action
    :param places: (batch,), uniform in [0, 1], for the place of the action
    :param n_guided: number of guided candidates, >= 1
    :return: (batch, action_dim), in [-1, 1]
    """
    n_free, action_dim = len(noise.noise) - 1 - n_guided, actions.shape[1]
    noisy_actions = reflect(th.add(actions, noise.noise[0], alpha=sigma))
    _, gradients = q_values_and_gradients(q_fn, noisy_actions.unsqueeze(0))
    uphill = F.normalize(gradients.squeeze(0), dim=-1)
    guide = (noisy_actions + GUIDE_SHIFT * sigma * math.sqrt(action_dim) * uphill).clamp(-1.0, 1.0)
    guide_sigma = GUIDE_WIDTH * sigma
    free = reflect(th.add(noisy_actions, noise.noise[1 : 1 + n_free], alpha=sigma))
    guided = reflect(th.add(guide, noise.noise[1 + n_free :], alpha=guide_sigma))

    def guided_log_odds(points: th.Tensor) -> th.Tensor:
        # of a candidate, to have come from the guided law and not from the free one
        log_ratio = reflected_normal_log_density(points, guide, guide_sigma)
        log_ratio -= reflected_normal_log_density(points, noisy_actions, sigma)
        return log_ratio + math.log(n_guided / n_free)

    is_guided = places < guided_log_odds(actions).sigmoid()
    place = (is_guided * n_free)[None, :, None].expand(1, -1, action_dim)
    candidates = th.cat([free, guided]).scatter(0, place, actions.unsqueeze(0))
    # R over the density of the mixture
    log_weights = q_fn(candidates) / temperature - F.softplus(guided_log_odds(candidates))
    return choose(candidates, log_weights, noise.uniforms)


class Corrector:
    """
    One round of :func:`particle_gibbs` for each noise level, or of :func:`guided_particle_gibbs`.

    :param n_corrector_proposals: per action and round; 0 leaves actions as they are
    :param sigmas: noise levels in the order of the rounds, action units (the box has half-width 1): large ones first, so that
        small ones settle what they left
    :param guided_share: of the proposals, in [0, 1]: those drawn uphill, see :func:`guided_particle_gibbs`, for which the
        gradient of Q is asked once per round
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, n_corrector_proposals: int, sigmas: Sequence[float] = (0.3,), guided_share: float = 0.0):
        self.n_proposals = as_integer("n_corrector_proposals", n_corrector_proposals, 0, "0 leaves actions as they are")
        if isinstance(sigmas, str) or not isinstance(sigmas, Sequence) or len(sigmas) == 0:
            raise InputError(
                f"sigmas of the corrector must be a list of numbers > 0, one for each round, got {sigmas!r}; for none, use "
                "n_corrector_proposals=0"
            )
        for sigma in sigmas:
            check_positive("each of the corrector's sigmas", sigma, "the action box has half-width 1")
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        if not is_finite_number(guided_share) or not 0 <= guided_share <= 1:
            raise InputError(
                f"guided_share must be in [0, 1], got {guided_share!r}; {hint_at_text(guided_share)}0 needs no gradient"
            )
        self.n_guided = round(guided_share * self.n_proposals)
        if self.n_proposals and guided_share > 0 and not self.n_guided:
            raise InputError(
                f"guided_share={guided_share} of {self.n_proposals} proposals is none; use 0, or "
                f"at least {1 / self.n_proposals:.3g}"
            )
        if self.n_guided and max(self.sigmas) > 1:
            raise InputError(f"sigmas of the corrector must be <= 1 with guided proposals, got {sigmas!r}; or guided_share=0")

    def __bool__(self) -> bool:
        return self.n_proposals > 0

    def noise_dim(self, action_dim: int) -> int:
        """
        :param action_dim: size of the action
        :return: how many random numbers all rounds take for one action
        """
        return len(self.sigmas) * self._noise_dim_of_round(action_dim) if self else 0

    def _noise_dim_of_round(self, action_dim: int) -> int:
        # guided proposals take one row of noise more, and a place
        return (1 + self.n_proposals) * action_dim + 1 + (action_dim + 1 if self.n_guided else 0)

    def __call__(
        self, q_fn: QFunction, actions: th.Tensor, temperature: float | th.Tensor, noise: th.Tensor | None = None
    ) -> th.Tensor:
        """
        :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch), differentiable if proposals are guided
        :param actions: (batch, action_dim), in [-1, 1]
        :param temperature: > 0, in units of Q
        :param noise: (batch, noise_dim), standard normal; drawn by default
        :return: (batch, action_dim), in [-1, 1]
        """
        if not self:
            return actions
        action_dim = actions.shape[1]
        if noise is None:
            noise = th.randn((len(actions), self.noise_dim(action_dim)), dtype=actions.dtype, device=actions.device)
        for sigma, of_round in zip(self.sigmas, noise.chunk(len(self.sigmas), dim=1), strict=True):
            if self.n_guided:
                places, rest = th.special.ndtr(of_round[:, 0]), CorrectorNoise.of(of_round[:, 1:], action_dim)
                actions = guided_particle_gibbs(q_fn, actions, sigma, temperature, rest, places, self.n_guided)
            else:
                actions = particle_gibbs(q_fn, actions, sigma, temperature, CorrectorNoise.of(of_round, action_dim))
        return actions
