"""How do the authors of DQS do it? Diffusion Q-Sampling as published, with its published values: arXiv:2410.01312."""

from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BaseModel, BasePolicy, ContinuousCritic
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from torch import nn

from sb3_dqs.diffusion.estimators import QFunction, Regression
from sb3_dqs.diffusion.paper import PaperDiffusion
from sb3_dqs.diffusion.samplers import PassCallback
from sb3_dqs.dqs import DQS
from sb3_dqs.policies import CnnPolicy, DiffusionActor, DiffusionPolicy, MultiInputPolicy

SelfPaperDQS = TypeVar("SelfPaperDQS", bound="PaperDQS")


class PaperActor(DiffusionActor):
    """Actor of the published algorithm: :class:`DiffusionActor` whose sampler draws noise at every step."""

    normalization_class = nn.Identity
    diffusion_class = PaperDiffusion
    refiner_class = None

    def sample_actions(self, features: th.Tensor, start_noise: th.Tensor, callback: PassCallback | None = None) -> th.Tensor:
        shape = (self.diffusion.n_diffusion_steps, *start_noise.shape)
        step_noise = th.randn(shape, dtype=start_noise.dtype, device=start_noise.device)
        return self.diffusion.sample_actions(features, start_noise, step_noise, callback)

    def regress(
        self, features: th.Tensor, actions: th.Tensor, n_on_policy: int, q_fn: QFunction, temperature: th.Tensor
    ) -> list[Regression]:
        return [self.diffusion.regress(features, actions, q_fn, temperature, self.diffusion.draw_noise(actions))]


class PaperPolicy(DiffusionPolicy):
    """Policy class (with both actor and critic) for the published algorithm: plain twin critics with a target network."""

    actor_class = PaperActor

    def __init__(
        self,
        *args: Any,
        critic_class: type[BaseModel] = ContinuousCritic,
        critic_betas: tuple[float, float] = (0.9, 0.999),
        **kwargs: Any,
    ):
        super().__init__(*args, critic_class=critic_class, critic_betas=critic_betas, **kwargs)  # type: ignore[misc]

    def follow_temperature(self, temperature: th.Tensor) -> None:
        super().follow_temperature(temperature)
        # the score network is fed it
        self.actor.diffusion.temperature.copy_(temperature)


class PaperCnnPolicy(PaperPolicy, CnnPolicy):
    """Policy class of the published algorithm on images."""


class PaperMultiInputPolicy(PaperPolicy, MultiInputPolicy):
    """Policy class of the published algorithm on Dict observations."""


class PaperDQS(DQS):
    """
    Diffusion Q-Sampling as published, arXiv:2410.01312, for comparison with :class:`~sb3_dqs.dqs.DQS`.

    The score network regresses on Monte Carlo estimates of the score of exp(Q / temperature) on the whole space, smoothed by
    noise, at replay actions; actions come from a reverse-time SDE, then tanh; the temperature is set by hand. Our deviation:
    the start noise of deterministic prediction is fixed. An update of its actor takes 180 times the critic evaluations of one
    of DQS.

    :param learning_rate: of critic and actor
    :param temperature: a float > 0 or an SB3 schedule, in units of Q; the authors also anneal it, as
        :class:`~sb3_dqs.temperature.LogLinearSchedule` does
    :param n_score_samples: noised copies per regression point at which the critic's gradient is taken
    :param n_diffusion_steps: Euler-Maruyama steps, each a network pass, per sampled action
    :param actor_batch_size: regression points per update; at most the ``batch_size`` rows of the critic's batch
    :param component_kwargs: ``{"diffusion": {...}}`` of :class:`~sb3_dqs.diffusion.paper.PaperDiffusion`

    All other arguments are those of :class:`~sb3_dqs.dqs.DQS`.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": PaperPolicy,
        "CnnPolicy": PaperCnnPolicy,
        "MultiInputPolicy": PaperMultiInputPolicy,
    }
    components = ("diffusion",)
    learns_temperature = False

    def __init__(
        self,
        policy: str | type[PaperPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,  # 1e6
        learning_starts: int = 10_000,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        temperature: float | Schedule = 0.05,
        n_score_samples: int = 1_000,
        n_diffusion_steps: int = 500,
        actor_batch_size: int = 256,
        component_kwargs: dict[str, dict[str, Any]] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            temperature=temperature,
            n_score_samples=n_score_samples,
            n_diffusion_steps=n_diffusion_steps,
            actor_batch_size=actor_batch_size,
            # what the published algorithm has not: each switched off
            policy_tau=1.0,
            actor_tau=1.0,
            policy_delay=1,
            actor_learning_rate_factor=1.0,
            n_action_candidates=1,
            n_corrector_proposals=0,
            exploration_correlation_time=0.0,
            component_kwargs=component_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def learn(
        self: SelfPaperDQS,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "PaperDQS",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPaperDQS:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
