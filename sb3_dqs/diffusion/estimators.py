"""
What does the network regress on?

On the box: the posterior mean D(x, sigma) = E[a | x] of the Boltzmann law exp(Q(s, a) / temperature) on [-1, 1]^d, seen
through x = a + sigma * noise. In the published setting: the score of exp(Q / temperature) smoothed by the same noise on
the whole space. Both are self-normalised averages over actions at which the critic is asked.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from torch.nn import functional as F

from sb3_dqs.diffusion.proposals import TruncatedNormal, antithetic_uniforms

QFunction = Callable[[th.Tensor], th.Tensor]

BOX_ESTIMATORS = ("stein", "value", "gradient")

# The coefficient of the control variate is fitted on the proposals of the other folds
N_FOLDS = 4

# Rows of actions that go through the critic at once: bounds the memory of the published 1000 samples per row.
MAX_CRITIC_ROWS = 32_768


class PosteriorEstimate(NamedTuple):
    """
    What is found of the posterior p(a | x) at noisy actions x.

    :param mean: (batch, action_dim), E[a | x], in the box, detached
    :param effective_sample_size: (batch,), 1 / sum of squared weights, in [1, n_samples]
    :param squared_error: (batch, 1), E |a - E[a | x]|^2 under the posterior
    """

    mean: th.Tensor
    effective_sample_size: th.Tensor
    squared_error: th.Tensor


class ScoreEstimate(NamedTuple):
    """
    What is found of the smoothed law at noisy actions x.

    :param score: (batch, action_dim), per action unit, detached
    :param effective_sample_size: (batch,), 1 / sum of squared weights, in [1, n_samples]
    """

    score: th.Tensor
    effective_sample_size: th.Tensor


class Guide(NamedTuple):
    """
    A guess of the posterior p(a | x), from which half of the proposals are drawn.

    :param mean: (batch, action_dim), in the box
    :param sigma: (batch, 1), standard deviation > 0, action units
    """

    mean: th.Tensor
    sigma: th.Tensor


class Kept(NamedTuple):
    """
    The draws of the law that noisy actions were made from, which take the place of a proposal.

    :param actions: (n_kept, action_dim), in the box, of the first ``n_kept`` noisy actions
    :param uniforms: (n_kept,), uniform in [0, 1): whether the place is one among the guided proposals
    """

    actions: th.Tensor
    uniforms: th.Tensor


class Regression(NamedTuple):
    """
    One regression of a diffusion's network.

    :param loss: scalar, to be minimised
    :param measures: name -> scalar, detached: what the temperature may be steered by
    """

    loss: th.Tensor
    measures: dict[str, th.Tensor]


def box_posterior_mean(
    q_fn: QFunction,
    noisy_actions: th.Tensor,
    sigma: th.Tensor,
    temperature: float | th.Tensor,
    uniforms: th.Tensor,
    estimator: str = "stein",
    guide: Guide | None = None,
    kept: Kept | None = None,
) -> PosteriorEstimate:
    """
    Estimate E[a | x] under p(a | x) proportional to exp(Q(a) / temperature) N(x; a, sigma^2 I) on the box.

    Proposals come from N(x, sigma^2 I) truncated to the box, in antithetic pairs, so the weights are softmax(Q /
    temperature). With a guide, half of the pairs come from a normal law around a guess of the posterior instead, and the
    weights are those of the mixture: the estimate stays consistent for any guide, and where Q is steep in many dimensions
    far more proposals count. ``"value"`` is the weighted mean of the proposals. ``"stein"`` adds the control variate phi of
    :func:`stein_control_variate`, whose posterior expectation is zero, with a cross-fitted coefficient per action
    coordinate; with fewer than three pairs, too few to fit one, it is ``"value"``. ``"gradient"`` adds it with the fixed
    coefficient sigma^2: in the middle of the box that is the published form x + sigma^2 E[grad Q] / temperature, and towards
    its walls it accounts for them.

    Weights that are normalised over few proposals pull the estimate to where these come from. Where x was made from a draw of
    the law itself, that draw is one of the posterior too. In the place of a proposal, with its partner, it makes the estimate
    ``"value"`` unbiased over draw, noise and proposals, for any number of them: this is a step of iterated sampling importance
    resampling, which leaves the posterior invariant.
    Source: self-normalised importance sampling with the balance heuristic (Veach and Guibas, 1995); control variate by
    Stein's identity on the box; its coefficient by splitting (Avramidis and Wilson, 1993); i-SIR, Andrieu, Lee and Vihola,
    arXiv:1312.6432.

    :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch); differentiable unless ``"value"``
    :param noisy_actions: (batch, action_dim), in [-1, 1] units, may lie outside the box
    :param sigma: (batch, 1), standard deviation > 0, action units
    :param temperature: > 0, in units of Q
    :param uniforms: (n / 2, batch, action_dim), uniform in [0, 1)
    :param estimator: one of ``BOX_ESTIMATORS``
    :param guide: guess of the posterior's mean and scale
    :param kept: draws of the law that noisy actions were made from, as well as one can draw
    :return: posterior mean, effective sample size and squared error
    """
    if estimator == "stein" and len(uniforms) < 3:
        # a slope through the single pair that is left for it fits perfectly, whatever the control variate is worth
        estimator = "value"
    proposals, log_corrections, n_unguided = _proposals(noisy_actions, sigma, uniforms, guide, kept)
    if estimator == "value":
        with th.no_grad():
            q_values = q_fn(proposals)
    else:
        q_values, q_gradients = q_values_and_gradients(q_fn, proposals)
    # weights sum to 1 per noisy action, so adding a constant to Q changes nothing
    weights = th.softmax(q_values / temperature + log_corrections, dim=0)
    effective_sample_size = _effective_sample_size(weights)
    posterior_mean = _weighted_mean(weights, proposals)
    # not corrected for the fitted mean: antithetic pairs know it far better than their number says
    squared_error = _weighted_mean(weights, (proposals - posterior_mean) ** 2).sum(dim=-1, keepdim=True)
    if estimator == "value":
        return PosteriorEstimate(posterior_mean, effective_sample_size, squared_error)

    control_variate = stein_control_variate(proposals, noisy_actions, sigma, q_gradients / temperature)
    if estimator == "stein":
        folds = _folds(len(proposals), n_unguided, proposals.device)
        coefficient = _cross_fitted_coefficient(weights, proposals - posterior_mean, control_variate, folds)
    else:
        coefficient = sigma**2
    posterior_mean = posterior_mean + _weighted_mean(weights, coefficient * control_variate)
    return PosteriorEstimate(posterior_mean.clamp(-1.0, 1.0), effective_sample_size, squared_error)


def stein_control_variate(
    actions: th.Tensor, noisy_actions: th.Tensor, sigma: th.Tensor, log_density_gradients: th.Tensor
) -> th.Tensor:
    """
    phi_j(a) = b(a_j) (d log p(a) / da_j - (a_j - x_j) / sigma^2) + b'(a_j), with b(a) = 1 - a^2.

    b is zero on the walls, so E[phi] = 0 under p(a | x) on the box, without a boundary term.

    :param actions: (n, batch, action_dim), in the box
    :param noisy_actions: (batch, action_dim)
    :param sigma: (batch, 1), standard deviation > 0, action units
    :param log_density_gradients: (n, batch, action_dim), grad Q / temperature at the actions
    :return: (n, batch, action_dim)
    """
    wall_distance = 1 - actions**2
    return wall_distance * (log_density_gradients - (actions - noisy_actions) / sigma**2) - 2 * actions


def smoothed_score(
    q_fn: QFunction, noisy_actions: th.Tensor, sigma: th.Tensor, temperature: float | th.Tensor, noise: th.Tensor
) -> ScoreEstimate:
    """
    Estimate the score of exp(Q / temperature) smoothed by N(0, sigma^2 I), on the whole space: the published target.

    Self-normalised average of grad Q over noised copies; biased O(1 / n_samples), exact for linear Q. The critic is
    asked outside the box too.
    Source: iDEM, arXiv:2402.06121, the Monte Carlo score that DQS, arXiv:2410.01312, regresses on; our deviation: none.

    :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch); differentiable
    :param noisy_actions: (batch, action_dim)
    :param sigma: (batch, 1), standard deviation >= 0, action units
    :param temperature: > 0, in units of Q
    :param noise: (n_samples, batch, action_dim), standard normal
    :return: score, per action unit, and effective sample size
    """
    q_values, q_gradients = q_values_and_gradients(q_fn, noisy_actions + sigma * noise)
    weights = th.softmax(q_values / temperature, dim=0)
    score = _weighted_mean(weights, q_gradients / temperature)
    return ScoreEstimate(score, _effective_sample_size(weights))


def _proposals(
    noisy_actions: th.Tensor, sigma: th.Tensor, uniforms: th.Tensor, guide: Guide | None, kept: Kept | None
) -> tuple[th.Tensor, th.Tensor, int]:
    """
    Proposals (n, batch, action_dim), the unguided ones first; ln N(a; x, sigma^2 I) minus their log-density, (n, batch)
    or (), up to a constant per row; and the number of unguided ones.
    """
    n_guided_pairs = 0 if guide is None else len(uniforms) // 2
    n_unguided_pairs = len(uniforms) - n_guided_pairs
    laws = [TruncatedNormal(noisy_actions, sigma)]
    if guide is not None and n_guided_pairs > 0:
        laws.append(TruncatedNormal(guide.mean, guide.sigma))
    draws = (uniforms[n_guided_pairs:], uniforms[:n_guided_pairs])
    proposals = [law.sample(antithetic_uniforms(of_law)) for law, of_law in zip(laws, draws, strict=False)]

    def guided_log_odds(actions: th.Tensor) -> th.Tensor:
        # of an action, to have come from the guided law and not from the unguided one
        if len(laws) == 1:
            return actions.new_full((), -math.inf)
        unguided_law, guided_law = laws
        log_ratio = guided_law.log_density(actions) - unguided_law.log_density(actions)
        return log_ratio + math.log(n_guided_pairs / n_unguided_pairs)

    if kept is not None:
        n_others = len(noisy_actions) - len(kept.actions)
        actions, places = F.pad(kept.actions, (0, 0, 0, n_others)), F.pad(kept.uniforms, (0, n_others))
        is_kept = th.arange(len(actions), device=actions.device) < len(kept.actions)
        is_guided = is_kept & (places < guided_log_odds(actions).sigmoid())
        triples = zip(proposals, laws, (is_kept & ~is_guided, is_guided), strict=False)
        proposals = [_replaced(of_law, law, actions, is_here) for of_law, law, is_here in triples]
    all_proposals = th.cat(proposals)
    # density of the mixture relative to that of the unguided proposals, which N(a; x, sigma^2 I) is proportional to
    return all_proposals, -F.softplus(guided_log_odds(all_proposals)), 2 * n_unguided_pairs


def _replaced(proposals: th.Tensor, law: TruncatedNormal, actions: th.Tensor, is_replaced: th.Tensor) -> th.Tensor:
    """The proposals of a law, where in the rows ``is_replaced`` the first antithetic pair is the action and its partner."""
    pair = th.stack([actions, law.antithetic(actions)])
    first = th.arange(2, device=actions.device) * (len(proposals) // 2)
    return proposals.index_copy(0, first, th.where(is_replaced[:, None], pair, proposals[first]))


def q_values_and_gradients(q_fn: QFunction, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch), differentiable
    :param actions: (n, batch, action_dim)
    :return: Q (n, batch) and its gradient in the action (n, batch, action_dim), both detached
    """
    samples_at_once = max(1, MAX_CRITIC_ROWS // actions.shape[1])
    chunks = [_q_values_and_gradients_of_chunk(q_fn, chunk) for chunk in actions.detach().split(samples_at_once)]
    q_values, q_gradients = zip(*chunks, strict=True)
    return th.cat(q_values), th.cat(q_gradients)


def _q_values_and_gradients_of_chunk(q_fn: QFunction, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    with th.enable_grad():
        leaf = actions.clone().requires_grad_(True)
        q_values = q_fn(leaf)
        # autograd.grad on the leaf leaves the gradients of the critic's parameters alone
        (q_gradients,) = th.autograd.grad(q_values.sum(), leaf)
    return q_values.detach(), q_gradients


def _weighted_mean(weights: th.Tensor, values: th.Tensor) -> th.Tensor:
    return (weights.unsqueeze(-1) * values).sum(dim=0)


def _effective_sample_size(weights: th.Tensor) -> th.Tensor:
    return 1 / (weights**2).sum(dim=0)


def _folds(n_proposals: int, n_unguided: int, device: th.device) -> th.Tensor:
    """Fold of each proposal, (n_proposals,), for cross-fitting: antithetic pairs stay together."""
    n_pairs = n_proposals // 2
    pairs = th.arange(n_pairs, device=device)
    unguided_pairs, guided_pairs = pairs[: n_unguided // 2], pairs[n_unguided // 2 :]
    # the order in which antithetic_uniforms() puts both halves of the pairs
    return th.cat([unguided_pairs, unguided_pairs, guided_pairs, guided_pairs]) % N_FOLDS


def _cross_fitted_coefficient(
    weights: th.Tensor, deviations: th.Tensor, control_variate: th.Tensor, folds: th.Tensor
) -> th.Tensor:
    """
    Coefficient of the control variate for each proposal, fitted on the proposals of the other folds, (n, batch, action_dim).

    It is that of least variance, minus the weighted regression slope of the deviations on the control variate, times their
    squared correlation, which holds it back where the control variate tells little. A slope that is fitted on the very
    proposals it is applied to varies with them, and the correction no longer has mean zero: with few proposals that pulls
    the means between two modes towards each other.
    """
    is_other = th.arange(N_FOLDS, device=folds.device)[:, None] != folds
    others = weights * is_other.unsqueeze(-1)
    tiny = th.finfo(weights.dtype).tiny
    others = (others / others.sum(dim=1, keepdim=True).clamp(min=tiny)).unsqueeze(-1)

    deviations = deviations - (others * deviations).sum(dim=1, keepdim=True)
    control_variate = control_variate - (others * control_variate).sum(dim=1, keepdim=True)
    covariance = (others * deviations * control_variate).sum(dim=1)
    variance = (others * control_variate**2).sum(dim=1)
    squared_correlation = covariance**2 / (variance * (others * deviations**2).sum(dim=1)).clamp(min=tiny)
    # a variance of zero means that one proposal holds all the weight: no slope, no correction
    return (-squared_correlation * covariance / variance.clamp(min=tiny))[folds]
