"""The ``paper`` setting: the algorithm of arXiv:2410.01312 as its authors published it."""

from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_dqs.checks import InputError, check_choice, check_integer, check_sigma_range, is_finite_number
from sb3_dqs.diffusion.estimators import QFunction, Regression, smoothed_score
from sb3_dqs.diffusion.networks import ScoreNetwork
from sb3_dqs.diffusion.noise import GeometricNoise
from sb3_dqs.diffusion.samplers import euler_maruyama


class PaperDiffusion(nn.Module):
    """
    Source: DQS, arXiv:2410.01312, as in the authors' code; our deviation: with ``deterministic=True`` the start noise is
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

    # Critic updates per regression, regression points (None: the critic's whole batch), the share of them that is drawn
    # from the policy, and the learning rate over the critic's
    DEFAULT_POLICY_DELAY = 1
    DEFAULT_BATCH_SIZE: int | None = None
    ON_POLICY_SHARE = 0.0
    DEFAULT_LEARNING_RATE_FACTOR = 1.0
    DEFAULT_EXPLORATION_NOISE = "white"

    temperature: th.Tensor

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        n_diffusion_steps: int = 500,
        n_score_samples: int = 1000,
        sigma_min: float = 1e-5,
        sigma_max: float = 1.0,
        squash: str = "tanh",
        loss_weight_offset: float = 1e-3,
    ):
        super().__init__()
        check_integer("n_diffusion_steps", n_diffusion_steps, 1, "500 is the published number")
        check_integer("n_score_samples", n_score_samples, 2, "1000 is the published number")
        check_sigma_range(sigma_min, sigma_max)
        check_choice("squash", squash, ["tanh", "clip"])
        if not is_finite_number(loss_weight_offset) or loss_weight_offset < 0:
            raise InputError(
                f"loss_weight_offset must be a number >= 0, got {loss_weight_offset!r}; 1e-3 is the published value"
            )
        self.n_diffusion_steps = n_diffusion_steps
        self.n_score_samples = n_score_samples
        self.squash = squash
        self.loss_weight_offset = loss_weight_offset
        self.process = GeometricNoise(sigma_min, sigma_max)
        self.score_network = ScoreNetwork(features_dim, action_dim, net_arch, activation_fn)
        # The network is fed the temperature: the one of the last regression is part of the policy and saved with it.
        self.register_buffer("temperature", th.ones(()))

    def sample_actions(self, features: th.Tensor, start_noise: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """
        Integrate the reverse-time SDE from N(0, sigma(1)^2 I); without further noise when deterministic.

        :param features: (batch, features_dim)
        :param start_noise: (batch, action_dim), standard normal
        :param deterministic: the published evaluation mode, which leaves out the noise of every step
        :return: (batch, action_dim), in [-1, 1]
        """
        score = self.score_network.condition(features, self.temperature)

        def score_fn(noisy_actions: th.Tensor, time: float) -> th.Tensor:
            return score(noisy_actions, noisy_actions.new_full((1, 1), time))

        step_noise = None
        if not deterministic:
            shape = (self.n_diffusion_steps, *start_noise.shape)
            step_noise = th.randn(shape, dtype=start_noise.dtype, device=start_noise.device)
        sigma_at_one = self.process.sigma(start_noise.new_ones(1, 1))
        actions = euler_maruyama(score_fn, sigma_at_one * start_noise, self.process, self.n_diffusion_steps, step_noise)
        return actions.tanh() if self.squash == "tanh" else actions.clamp(-1.0, 1.0)

    def regress(
        self, features: th.Tensor, actions: th.Tensor, n_on_policy: int, q_fn: QFunction, temperature: th.Tensor
    ) -> Regression:
        """
        One regression of the score network on the Monte Carlo score at noised actions.

        :param features: (batch, features_dim), may require gradients
        :param actions: (batch, action_dim), in [-1, 1]
        :param n_on_policy: without effect: the published algorithm treats all actions alike
        :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch) of the same observations
        :param temperature: scalar > 0, in units of Q
        :return: loss and effective sample size
        """
        self.temperature.copy_(temperature)
        time = th.rand_like(actions[:, :1])
        sigma = self.process.sigma(time)
        noisy_actions = actions + sigma * th.randn_like(actions)
        noise = th.randn((self.n_score_samples, *actions.shape), dtype=actions.dtype, device=actions.device)
        estimate = smoothed_score(q_fn, noisy_actions, sigma, temperature, noise)

        scores = self.score_network.condition(features, self.temperature)(noisy_actions, time)
        weight = sigma**2 + self.loss_weight_offset
        loss = (weight * (scores - estimate.target) ** 2).mean()
        return Regression(loss, estimate.effective_sample_size.mean())
