"""The ``box`` setting: a denoiser of the Boltzmann law on [-1, 1]^d, trained on box posterior means, sampled in few steps."""

import math
from collections.abc import Callable, Sequence

import torch as th
from torch import nn

from sb3_dqs.checks import InputError, check_choice, check_integer, check_positive, check_sigma_range
from sb3_dqs.diffusion.entropy import boltzmann_entropy, policy_entropy
from sb3_dqs.diffusion.estimators import BOX_ESTIMATORS, Guide, QFunction, Regression, box_posterior_mean
from sb3_dqs.diffusion.networks import PreconditionedDenoiser
from sb3_dqs.diffusion.noise import geometric_sigmas, stratified_log_uniform_sigmas
from sb3_dqs.diffusion.samplers import dpm_solver_pp_2m

Denoiser = Callable[[th.Tensor, th.Tensor], th.Tensor]

# Variance of the guided proposals over that of the guessed posterior, and their smallest variance over that of the noise.
GUIDE_WIDENING = 1.5
GUIDE_MIN_RELATIVE_VARIANCE = 1e-3


class BoxDiffusion(nn.Module):
    """
    :param features_dim: size of the observation features
    :param action_dim: size of the action
    :param net_arch: sizes of the hidden layers of the denoiser
    :param activation_fn: activation after each hidden layer
    :param n_diffusion_steps: network passes per sampled action
    :param n_score_samples: proposals per regression point, even
    :param score_estimator: ``"stein"``, ``"value"`` or ``"gradient"``, see
        :func:`~sb3_dqs.diffusion.estimators.box_posterior_mean`
    :param sigma_min: smallest noise level, action units (the box has half-width 1)
    :param sigma_max: largest noise level, action units
    :param sigma_data: expected standard deviation of an action coordinate, action units
    """

    # Critic updates per regression, regression points, the share of them that is drawn from the policy, and the learning
    # rate over the critic's: with many points of few proposals and a high rate the policy follows a moving critic fastest
    DEFAULT_POLICY_DELAY = 2
    DEFAULT_BATCH_SIZE: int | None = 64
    ON_POLICY_SHARE = 0.5
    DEFAULT_LEARNING_RATE_FACTOR = 3.0
    # All randomness is in the start noise, so that it can be correlated over the steps of an episode
    DEFAULT_EXPLORATION_NOISE = "correlated"

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        n_diffusion_steps: int = 5,
        n_score_samples: int = 8,
        score_estimator: str = "stein",
        sigma_min: float = 0.02,
        sigma_max: float = 1.5,
        sigma_data: float = 0.5,
    ):
        super().__init__()
        check_integer("n_diffusion_steps", n_diffusion_steps, 2, "one step gives the mean of the law alone; 5 is the default")
        check_integer("n_score_samples", n_score_samples, 2, "8 is the default")
        if n_score_samples % 2:
            raise InputError(
                f"n_score_samples must be even, got {n_score_samples}; proposals come in antithetic pairs, "
                f"so use {n_score_samples + 1}"
            )
        check_choice("score_estimator", score_estimator, BOX_ESTIMATORS)
        check_sigma_range(sigma_min, sigma_max)
        check_positive("sigma_data", sigma_data, "0.5 is the default")
        self.n_score_samples = n_score_samples
        self.score_estimator = score_estimator
        self.sigma_min, self.sigma_max, self.sigma_data = sigma_min, sigma_max, sigma_data
        self.sigmas = geometric_sigmas(sigma_min, sigma_max, n_diffusion_steps)
        self.denoiser = PreconditionedDenoiser(
            features_dim, action_dim, net_arch, activation_fn, sigma_min, sigma_max, sigma_data, self.sigmas
        )

    def sample_actions(self, features: th.Tensor, start_noise: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """
        Solve the probability-flow ODE from the start noise; the solution is the same in both modes.

        :param features: (batch, features_dim)
        :param start_noise: (batch, action_dim), standard normal
        :param deterministic: without effect: all randomness is in ``start_noise``
        :return: (batch, action_dim), in [-1, 1]
        """
        denoise = self.denoiser.condition_on_levels(features)

        def box_denoiser(noisy_actions: th.Tensor, sigma: float) -> th.Tensor:
            return denoise(noisy_actions, sigma).clamp(-1.0, 1.0)

        return dpm_solver_pp_2m(box_denoiser, self.sigma_max * start_noise, self.sigmas, recentre=True)

    def regress(
        self, features: th.Tensor, actions: th.Tensor, n_on_policy: int, q_fn: QFunction, temperature: th.Tensor
    ) -> Regression:
        """
        One regression of the denoiser on the box posterior mean at noised actions.

        :param features: (batch, features_dim), may require gradients
        :param actions: (batch, action_dim), in [-1, 1]; the first ``n_on_policy`` rows were drawn from the policy
        :param n_on_policy: number of rows that the entropy is estimated from, >= 1
        :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch) of the same observations
        :param temperature: scalar > 0, in units of Q
        :return: loss, effective sample size, entropy of the Boltzmann law and of the policy, spread of Q over the box
        """
        # Both parts are stratified on their own, so that either one covers all noise levels
        sigma = th.cat(
            [
                stratified_log_uniform_sigmas(th.rand_like(part[:, :1]), self.sigma_min, self.sigma_max)
                for part in (actions[:n_on_policy], actions[n_on_policy:])
            ]
        )
        noisy_actions = actions + sigma * th.randn_like(actions)
        uniforms = th.rand((self.n_score_samples // 2, *actions.shape), dtype=actions.dtype, device=actions.device)
        denoise = self.denoiser.condition(features)
        denoised_actions = denoise(noisy_actions, sigma)
        signs = th.empty_like(actions).bernoulli_().mul_(2).sub_(1)
        guide = denoiser_guide(denoise, denoised_actions, noisy_actions, sigma, signs)
        estimate = box_posterior_mean(q_fn, noisy_actions, sigma, temperature, uniforms, self.score_estimator, guide)
        # the EDM weight, 1 / c_out^2, gives every noise level the same say in the loss
        weight = 1 / self.denoiser.c_out(sigma) ** 2
        loss = (weight * (denoised_actions - estimate.target) ** 2).mean()

        assert estimate.squared_error is not None
        assert estimate.q_spread is not None
        noise_range = (self.sigma_min, self.sigma_max)
        drawn = slice(0, n_on_policy)
        with th.no_grad():
            entropy = boltzmann_entropy(estimate.squared_error[drawn], sigma[drawn], noise_range, actions.shape[1])
            entropy_of_policy = policy_entropy(
                actions[drawn], noisy_actions[drawn], guide.mean[drawn], sigma[drawn], noise_range, self.sigma_data
            )
            # At large sigma the unguided proposals are nearly uniform on the box
            noisiest = (sigma >= sigma.max() / 2).squeeze(1)
            q_spread = (estimate.q_spread * noisiest).sum() / noisiest.sum()
        return Regression(loss, estimate.effective_sample_size.mean(), entropy, entropy_of_policy, q_spread)


def denoiser_guide(
    denoise: Denoiser, denoised_actions: th.Tensor, noisy_actions: th.Tensor, sigma: th.Tensor, signs: th.Tensor
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
    :return: mean and scale of each row, detached
    """
    with th.no_grad():
        diagonal = signs / math.sqrt(signs.shape[1])
        step = diagonal * sigma
        ahead, behind = denoise(noisy_actions + th.stack([step, -step]), sigma).clamp(-1.0, 1.0)
        slope = ((ahead - behind) * diagonal).sum(dim=1, keepdim=True) / (2 * sigma)
        # a proposal law should be wider than its target, but needs no more than the noise itself
        relative_variance = (GUIDE_WIDENING * slope).clamp(GUIDE_MIN_RELATIVE_VARIANCE, 1.0)
        return Guide(denoised_actions.clamp(-1.0, 1.0), sigma * relative_variance.sqrt())
