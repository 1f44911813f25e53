"""How is the law on the box [-1, 1]^d learned and sampled? A denoiser, trained on posterior means, sampled in few steps."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch as th
from torch import nn

from sb3_dqs.checks import InputError, as_integer, check_choice, check_positive, check_share, check_sigma_range
from sb3_dqs.diffusion.entropy import boltzmann_entropy
from sb3_dqs.diffusion.estimators import BOX_ESTIMATORS, Guide, Kept, QFunction, Regression, box_posterior_mean
from sb3_dqs.diffusion.networks import PreconditionedDenoiser
from sb3_dqs.diffusion.noise import geometric_sigmas, stratified_log_uniform_sigmas
from sb3_dqs.diffusion.samplers import PassCallback, dpm_solver_pp_2m

Denoiser = Callable[[th.Tensor, th.Tensor], th.Tensor]


# Half of the pairs are guided, and one is not
MIN_GUIDED_SAMPLES = 4


class BoxNoise(NamedTuple):
    """
    What one regression draws.

    :param level_uniforms: (batch, 1), uniform in [0, 1), for the noise levels
    :param noise: (batch, action_dim), standard normal, added to the actions
    :param proposal_uniforms: (n_score_samples / 2, batch, action_dim), uniform in [0, 1)
    :param kept_uniforms: (batch,), uniform in [0, 1), for the places of the actions that are kept as proposals
    :param signs: (batch, action_dim), -1 or 1
    :param uniform_actions: (2, batch, action_dim), uniform on the box
    """

    level_uniforms: th.Tensor
    noise: th.Tensor
    proposal_uniforms: th.Tensor
    kept_uniforms: th.Tensor
    signs: th.Tensor
    uniform_actions: th.Tensor


class BoxDiffusion(nn.Module):
    """
    The law exp(Q / temperature) on the box [-1, 1]^d: a denoiser learns its posterior means, and a probability-flow ODE
    samples it in a few passes.

    :param features_dim: size of the normalised observation features
    :param action_dim: size of the action
    :param net_arch: sizes of the hidden layers of the denoiser
    :param activation_fn: activation after each hidden layer
    :param n_diffusion_steps: network passes per sample; candidates leave out every other level, but not the last
    :param n_score_samples: proposals per regression point, even
    :param score_estimator: ``"stein"``, ``"value"`` or ``"gradient"``, see
        :func:`~sb3_dqs.diffusion.estimators.box_posterior_mean`
    :param sigma_min: smallest noise level, action units (the box has half-width 1)
    :param sigma_max: largest noise level, action units
    :param sigma_data: expected standard deviation of an action coordinate, action units
    :param on_policy_share: share of the regression points that are drawn from the policy, in (0, 1]; the others are actions
        of the replay buffer. The entropy of the law is read from them.
    :param guide_widening: variance of the guided proposals, which there are from ``n_score_samples=4`` on, over that of the
        guessed posterior, > 0
    :param guide_min_relative_variance: their smallest variance over that of the noise, in (0, 1]
    """

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        n_diffusion_steps: int,
        n_score_samples: int,
        score_estimator: str = "stein",
        sigma_min: float = 0.02,
        sigma_max: float = 1.5,
        sigma_data: float = 0.5,
        on_policy_share: float = 0.5,
        guide_widening: float = 1.5,
        guide_min_relative_variance: float = 1e-3,
    ):
        super().__init__()
        n_diffusion_steps = as_integer("n_diffusion_steps", n_diffusion_steps, 2, "one step gives the mean of the law alone")
        self.n_score_samples = as_integer("n_score_samples", n_score_samples, 2, "proposals come in antithetic pairs")
        if self.n_score_samples % 2:
            raise InputError(
                f"n_score_samples must be even, got {n_score_samples}; proposals come in antithetic pairs, "
                f"so use {self.n_score_samples + 1}"
            )
        check_choice("score_estimator", score_estimator, BOX_ESTIMATORS)
        check_sigma_range(sigma_min, sigma_max)
        check_positive("sigma_data", sigma_data, "it is the usual standard deviation of an action coordinate, on [-1, 1]")
        check_share("on_policy_share", on_policy_share, "1 regresses on actions of the policy alone")
        check_positive("guide_widening", guide_widening, "1 makes the proposals as wide as the guessed posterior")
        check_share("guide_min_relative_variance", guide_min_relative_variance, "1 makes them as wide as the noise")
        self.score_estimator = score_estimator
        self.sigma_min, self.sigma_max, self.sigma_data = sigma_min, sigma_max, sigma_data
        self.on_policy_share = on_policy_share
        self.guide_widening, self.guide_min_relative_variance = guide_widening, guide_min_relative_variance
        self.sigmas = geometric_sigmas(sigma_min, sigma_max, n_diffusion_steps)
        # every other level, and the last
        self.coarse_sigmas = [*self.sigmas[:-1:2], self.sigmas[-1]]
        self.denoiser = PreconditionedDenoiser(
            features_dim, action_dim, net_arch, activation_fn, sigma_min, sigma_max, sigma_data, self.sigmas
        )

    def sample_actions(self, features: th.Tensor, start_noise: th.Tensor, callback: PassCallback | None = None) -> th.Tensor:
        """
        Solve the probability-flow ODE from the start noise, in which all randomness lies.

        :param features: (batch, features_dim), normalised
        :param start_noise: (batch, action_dim), standard normal
        :param callback: called with the noisy actions before each network pass
        :return: (batch, action_dim), in [-1, 1]
        """
        return self._solve(self.denoiser.condition_on_levels(features), start_noise, self.sigmas, callback)

    def sample_candidates(self, features: th.Tensor, start_noise: th.Tensor) -> th.Tensor:
        """
        As :meth:`sample_actions`, in about half the passes: for samples that are chosen among, which mends the rest.

        :param features: (batch, features_dim), normalised
        :param start_noise: (n, batch, action_dim), standard normal
        :return: (n, batch, action_dim), in [-1, 1]
        """
        denoise = self.denoiser.condition_on_levels(features, start_noise.shape[0])
        return self._solve(denoise, start_noise.flatten(end_dim=1), self.coarse_sigmas).view(start_noise.shape)

    def _solve(
        self,
        denoise: Callable[[th.Tensor, float], th.Tensor],
        start_noise: th.Tensor,
        sigmas: Sequence[float],
        callback: PassCallback | None = None,
    ) -> th.Tensor:
        def box_denoiser(noisy_actions: th.Tensor, sigma: float) -> th.Tensor:
            if callback is not None:
                callback(noisy_actions)
            return denoise(noisy_actions, sigma).clamp_(-1.0, 1.0)

        return dpm_solver_pp_2m(box_denoiser, self.sigma_max * start_noise, sigmas, recentre=True)

    def draw_noise(self, actions: th.Tensor) -> BoxNoise:
        """
        :param actions: (batch, action_dim) of the regression points, for size, type and device
        :return: random numbers for :meth:`regress`, from torch's generator
        """
        proposals_shape = (self.n_score_samples // 2, *actions.shape)
        return BoxNoise(
            level_uniforms=th.rand_like(actions[:, :1]),
            noise=th.randn_like(actions),
            proposal_uniforms=th.rand(proposals_shape, dtype=actions.dtype, device=actions.device),
            kept_uniforms=th.rand_like(actions[:, 0]),
            signs=th.empty_like(actions).bernoulli_().mul_(2).sub_(1),
            uniform_actions=th.rand((2, *actions.shape), dtype=actions.dtype, device=actions.device).mul_(2).sub_(1),
        )

    def regress(
        self,
        features: th.Tensor,
        actions: th.Tensor,
        n_on_policy: int,
        q_fn: QFunction,
        temperature: th.Tensor,
        noise: BoxNoise,
    ) -> Regression:
        """
        One regression of the denoiser on the box posterior mean at noised actions.

        :param features: (batch, features_dim), normalised, may require gradients
        :param actions: (batch, action_dim), in [-1, 1]; the first ``n_on_policy`` rows were drawn from the policy
        :param n_on_policy: number of rows that the entropy is estimated from, >= 1
        :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch) of the same observations
        :param temperature: scalar > 0, in units of Q
        :param noise: of :meth:`draw_noise`
        :return: loss, and the measures ``effective_sample_size``; ``entropy`` of the Boltzmann law, nats per action dimension;
            ``q_spread``, root mean square over the rows of the standard deviation of Q over the box
        """
        sigma = self._noise_levels(noise.level_uniforms, n_on_policy)
        noisy_actions = actions + sigma * noise.noise

        denoise = self.denoiser.condition(features)
        denoised_actions = denoise(noisy_actions, sigma)
        guide = None
        if self.n_score_samples >= MIN_GUIDED_SAMPLES:
            guide = denoiser_guide(
                denoise,
                denoised_actions,
                noisy_actions,
                sigma,
                noise.signs,
                self.guide_widening,
                self.guide_min_relative_variance,
            )
        posterior = box_posterior_mean(
            q_fn,
            noisy_actions,
            sigma,
            temperature,
            noise.proposal_uniforms,
            self.score_estimator,
            guide,
            Kept(actions[:n_on_policy], noise.kept_uniforms[:n_on_policy]),
        )
        # the EDM weight, 1 / c_out^2, gives every noise level the same say in the loss
        loss = ((denoised_actions - posterior.mean) ** 2 / self.denoiser.c_out(sigma) ** 2).mean()

        drawn = slice(0, n_on_policy)
        action_dim = actions.shape[1]
        with th.no_grad():
            entropy = boltzmann_entropy(
                posterior.squared_error[drawn], sigma[drawn], self.sigma_min, self.sigma_max, action_dim
            )
            # half the mean squared difference of two independent draws is the variance
            first_q_values, second_q_values = q_fn(noise.uniform_actions)
            q_variance = (first_q_values - second_q_values).square().mean() / 2
        measures = {
            "effective_sample_size": posterior.effective_sample_size.mean(),
            "entropy": entropy / action_dim,
            "q_spread": q_variance.sqrt(),
        }
        return Regression(loss, measures)

    def _noise_levels(self, uniforms: th.Tensor, n_on_policy: int) -> th.Tensor:
        """Rows drawn from the policy and the others are stratified on their own, so that either part covers all levels."""
        parts = (uniforms[:n_on_policy], uniforms[n_on_policy:])
        return th.cat([stratified_log_uniform_sigmas(part, self.sigma_min, self.sigma_max) for part in parts])


def denoiser_guide(
    denoise: Denoiser,
    denoised_actions: th.Tensor,
    noisy_actions: th.Tensor,
    sigma: th.Tensor,
    signs: th.Tensor,
    widening: float,
    min_relative_variance: float,
) -> Guide:
    """
    Guess the posterior p(a | x) from the denoiser: around its output, and as wide as its slope tells.

    The covariance of the posterior is sigma^2 dD/dx. Its mean over the coordinates is measured along one random diagonal,
    by a difference as long as the noise: where x lies between two modes the slope is steep, and the guide covers both.
    Source: Tweedie's formula of second order.

    :param denoise: maps noisy actions (..., batch, action_dim) and sigma (batch, 1) to E[a | x]
    :param denoised_actions: (batch, action_dim), E[a | x] at the noisy actions
    :param noisy_actions: (batch, action_dim)
    :param sigma: (batch, 1), noise levels, action units
    :param signs: (batch, action_dim), random signs, the direction of the diagonal
    :param widening: variance of the guide over that of the guessed posterior: a proposal law should be wider than its target
    :param min_relative_variance: smallest variance of the guide over sigma^2; the largest is 1, the noise itself
    :return: mean and scale of each row, detached
    """
    with th.no_grad():
        diagonal = signs / math.sqrt(signs.shape[1])
        step = diagonal * sigma
        ahead, behind = denoise(noisy_actions + th.stack([step, -step]), sigma).clamp(-1.0, 1.0)
        slope = ((ahead - behind) * diagonal).sum(dim=1, keepdim=True) / (2 * sigma)
        relative_variance = (widening * slope).clamp(min_relative_variance, 1.0)
        return Guide(denoised_actions.clamp(-1.0, 1.0), sigma * relative_variance.sqrt())
