"""How do the authors learn and sample the law? A score network on the whole space: arXiv:2410.01312 as published."""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch import nn

from sb3_dqs.checks import as_integer, check_choice, check_not_negative, check_sigma_range
from sb3_dqs.diffusion.estimators import QFunction, Regression, smoothed_score
from sb3_dqs.diffusion.networks import ScoreNetwork, repeat_rows
from sb3_dqs.diffusion.noise import GeometricNoise
from sb3_dqs.diffusion.samplers import PassCallback, euler_maruyama


class PaperNoise(NamedTuple):
    """
    What one regression draws.

    :param times: (batch, 1), uniform in [0, 1)
    :param noise: (batch, action_dim), standard normal, added to the actions
    :param sample_noise: (n_score_samples, batch, action_dim), standard normal
    """

    times: th.Tensor
    noise: th.Tensor
    sample_noise: th.Tensor


class PaperDiffusion(nn.Module):
    """
    The published diffusion: a score network on the whole space, sampled by a reverse-time SDE.

    Source: DQS, arXiv:2410.01312, as in the authors' code; our deviation: with deterministic prediction the start noise is
    given by the caller and fixed, where the authors draw it, so that prediction is a function of observation and weights.

    :param features_dim: size of the observation features
    :param action_dim: size of the action
    :param net_arch: sizes of the hidden layers of the score network
    :param activation_fn: activation after each hidden layer
    :param n_diffusion_steps: Euler-Maruyama steps, each a network pass, per sampled action
    :param n_score_samples: noised copies per regression point at which the critic's gradient is taken
    :param sigma_min: scale of the noise at small times, action units
    :param sigma_max: scale of the noise at time 1, action units
    :param squash: ``"tanh"``, as published, or ``"clip"``: how samples are brought into the box
    :param loss_weight_offset: the loss at time t is weighted by sigma(t)^2 plus this
    """

    # of the regression points: as published, all are replay actions
    on_policy_share = 0.0

    temperature: th.Tensor

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        n_diffusion_steps: int,
        n_score_samples: int,
        sigma_min: float = 1e-5,
        sigma_max: float = 1.0,
        squash: str = "tanh",
        loss_weight_offset: float = 1e-3,
    ):
        super().__init__()
        self.n_diffusion_steps = as_integer("n_diffusion_steps", n_diffusion_steps, 1, "500 is the published number")
        self.n_score_samples = as_integer("n_score_samples", n_score_samples, 2, "1000 is the published number")
        check_sigma_range(sigma_min, sigma_max)
        check_choice("squash", squash, ["tanh", "clip"])
        check_not_negative("loss_weight_offset", loss_weight_offset, "1e-3 is the published value")
        self.squash = squash
        self.loss_weight_offset = loss_weight_offset
        self.process = GeometricNoise(sigma_min, sigma_max)
        self.start_sigma = self.process.sigma(th.ones(())).item()
        self.score_network = ScoreNetwork(features_dim, action_dim, net_arch, activation_fn)
        # The network is fed the temperature: the one that the policy follows is part of it, and saved with it.
        self.register_buffer("temperature", th.ones(()))

    def sample_actions(
        self,
        features: th.Tensor,
        start_noise: th.Tensor,
        step_noise: th.Tensor | None = None,
        callback: PassCallback | None = None,
    ) -> th.Tensor:
        """
        Integrate the reverse-time SDE from N(0, sigma(1)^2 I).

        :param features: (batch, features_dim)
        :param start_noise: (batch, action_dim), standard normal
        :param step_noise: (n_diffusion_steps, batch, action_dim), standard normal; None for the published evaluation mode,
            which leaves out the noise of every step
        :param callback: called with the noisy actions before each network pass
        :return: (batch, action_dim), in [-1, 1]
        """
        score = self.score_network.condition(features, self.temperature)

        def score_fn(noisy_actions: th.Tensor, time: float) -> th.Tensor:
            if callback is not None:
                callback(noisy_actions)
            return score(noisy_actions, noisy_actions.new_full((1, 1), time))

        noisy_actions = self.start_sigma * start_noise
        actions = euler_maruyama(score_fn, noisy_actions, self.process, self.n_diffusion_steps, step_noise)
        return actions.tanh() if self.squash == "tanh" else actions.clamp(-1.0, 1.0)

    def sample_candidates(self, features: th.Tensor, start_noise: th.Tensor) -> th.Tensor:
        """
        :meth:`sample_actions` without the noise of the steps, as published for evaluation.

        :param features: (batch, features_dim)
        :param start_noise: (n, batch, action_dim), standard normal
        :return: (n, batch, action_dim), in [-1, 1]
        """
        repeated = repeat_rows(features, start_noise.shape[0])
        return self.sample_actions(repeated, start_noise.flatten(end_dim=1)).view(start_noise.shape)

    def draw_noise(self, actions: th.Tensor) -> PaperNoise:
        """
        :param actions: (batch, action_dim) of the regression points, for size, type and device
        :return: random numbers for :meth:`regress`, from torch's generator
        """
        samples_shape = (self.n_score_samples, *actions.shape)
        return PaperNoise(
            times=th.rand_like(actions[:, :1]),
            noise=th.randn_like(actions),
            sample_noise=th.randn(samples_shape, dtype=actions.dtype, device=actions.device),
        )

    def regress(
        self, features: th.Tensor, actions: th.Tensor, q_fn: QFunction, temperature: th.Tensor, noise: PaperNoise
    ) -> Regression:
        """
        One regression of the score network on the Monte Carlo score at noised actions.

        :param features: (batch, features_dim), may require gradients
        :param actions: (batch, action_dim), in [-1, 1]
        :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch) of the same observations
        :param temperature: scalar > 0, in units of Q
        :param noise: of :meth:`draw_noise`
        :return: loss, and the measure ``effective_sample_size``
        """
        sigma = self.process.sigma(noise.times)
        noisy_actions = actions + sigma * noise.noise

        estimate = smoothed_score(q_fn, noisy_actions, sigma, temperature, noise.sample_noise)
        scores = self.score_network.condition(features, temperature)(noisy_actions, noise.times)
        loss = ((sigma**2 + self.loss_weight_offset) * (scores - estimate.score) ** 2).mean()
        return Regression(loss, {"effective_sample_size": estimate.effective_sample_size.mean()})
