"""How does DQS learn? Settings, and ``train()`` as a table of contents over critic, actor and temperature updates."""

import inspect
import math
import warnings
from collections import defaultdict
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy, ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import (
    DictReplayBufferSamples,
    GymEnv,
    MaybeCallback,
    PyTorchObs,
    ReplayBufferSamples,
    Schedule,
    TensorDict,
)
from stable_baselines3.common.utils import FloatSchedule, get_parameters_by_name, polyak_update
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sb3_dqs.buffers import DeviceReplayBuffer
from sb3_dqs.checks import InputError, check_choice, check_integer, check_positive, is_finite_number
from sb3_dqs.exploration import EXPLORATION_NOISES, CorrelatedNoise
from sb3_dqs.graphed import CudaRecorder, GraphedUpdate, let_wait
from sb3_dqs.policies import DIFFUSIONS, CnnPolicy, DiffusionActor, DiffusionPolicy, MlpPolicy, MultiInputPolicy, min_q_fn
from sb3_dqs.temperature import Thermostat, cooled_share, cooling_entropy_target

SelfDQS = TypeVar("SelfDQS", bound="DQS")

# Constant temperature of the published setting, arXiv:2410.01312.
PAPER_TEMPERATURE = 0.05

# What ``target_entropy="auto"`` stands for, nats per action dimension. A uniform policy has ln 2 = 0.69, SAC's target is -1.
AUTO_ENTROPY_PER_DIMENSION = -0.5

# Start of the automatic temperature, relative to the spread of Q, and length of the cooling of its entropy target.
DEFAULT_INITIAL_TEMPERATURE = 3.0
DEFAULT_COOLING_UPDATES = 5_000

# An action coordinate beyond this share of the box counts as being at the wall.
WALL = 0.99

Metrics = dict[str, th.Tensor]


class DQS(OffPolicyAlgorithm):
    """
    Diffusion Q-Sampling (DQS)

    Off-policy actor-critic whose policy is the Boltzmann law exp(Q(s, a) / temperature) on the action box, sampled by a
    diffusion model that is trained from the critic alone.
    Paper: https://arxiv.org/abs/2410.01312

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, ...)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: learning rate of the critic, and times ``actor_learning_rate_factor`` of the actor;
        it can be a function of the current progress remaining (from 1 to 0)
    :param buffer_size: size of the replay buffer
    :param learning_starts: how many steps of the model to collect transitions for before learning starts
    :param batch_size: Minibatch size for each gradient update of the critic
    :param tau: the soft update coefficient ("Polyak update", between 0 and 1)
    :param gamma: the discount factor
    :param train_freq: Update the model every ``train_freq`` steps. Alternatively pass a tuple of frequency and unit
        like ``(5, "step")`` or ``(2, "episode")``.
    :param gradient_steps: How many gradient steps to do after each rollout (see ``train_freq``);
        ``-1`` means as many as steps done in the environment during the rollout.
    :param action_noise: the action noise type (None by default), added to the actions of the policy.
    :param replay_buffer_class: Replay buffer class to use (for instance ``HerReplayBuffer``).
        If ``None``, it will be automatically selected.
    :param replay_buffer_kwargs: Keyword arguments to pass to the replay buffer on creation.
    :param optimize_memory_usage: Enable a memory efficient variant of the replay buffer at a cost of more complexity.
    :param n_steps: When n_step > 1, uses n-step return (with the NStepReplayBuffer) when updating the Q-value network.
    :param diffusion: ``"box"``, our setting, or ``"paper"``, the published algorithm with its published values.
        Settings that are ``None`` below take the default of the chosen diffusion.
    :param temperature: temperature of the policy, in units of Q: a float > 0, an SB3 schedule (for instance
        :class:`~sb3_dqs.temperature.LogLinearSchedule`), or ``"auto"``: learned, so that the policy's entropy follows
        ``target_entropy``. The paper has no automatic temperature: there ``"auto"`` is its constant, 0.05.
    :param target_entropy: entropy that ``temperature="auto"`` holds the policy at, in nats for the whole action vector on
        the [-1, 1] box; ``"auto"`` is -0.5 per action dimension
    :param initial_temperature: where ``temperature="auto"`` starts, > 0, relative to the spread of Q (the standard
        deviation of Q over the action box, followed as Q is learned): 3.0 by default, a nearly uniform policy, whatever
        the scale of the rewards
    :param cooling_updates: with ``temperature="auto"``, the entropy target falls linearly from that of a nearly uniform
        policy to ``target_entropy`` over this many updates of the critic, so that no good action is given up before it was
        tried (5000 by default; 0 to start with the final target). Correlated exploration fades over the same updates, also
        where the temperature is not automatic. With n environments and ``gradient_steps=-1`` each takes one step per n
        updates: where goals are hard to find, multiply by n to keep exploration correlated for as many steps of each.
    :param score_estimator: what the denoiser regresses on: ``"stein"`` (default), posterior mean with Stein's control
        variate, which takes 6 score samples or more; ``"value"``, without it, no gradients of Q; ``"gradient"``, gradients
        of Q alone. Box only.
    :param n_score_samples: actions per regression point at which the critic is asked (box 8, even; paper 1000)
    :param n_diffusion_steps: network passes per sampled action (box 5, paper 500)
    :param actor_batch_size: regression points per actor update, at most ``batch_size`` (box 64, paper ``batch_size``)
    :param policy_delay: update actor and temperature every this many critic updates (box 2, paper 1)
    :param actor_learning_rate_factor: learning rate of the actor over that of the critic, > 0 (box 3.0, paper 1.0)
    :param n_action_candidates: the deterministic action is the best by Q of this many candidates
    :param diffusion_kwargs: rarely changed settings of :class:`~sb3_dqs.diffusion.box.BoxDiffusion` (``sigma_min``,
        ``sigma_max``, ``sigma_data``) or :class:`~sb3_dqs.diffusion.paper.PaperDiffusion` (``sigma_min``, ``sigma_max``,
        ``squash``, ``loss_weight_offset``)
    :param exploration_noise: start noise of the actions that ``learn()`` takes: ``"correlated"`` (default of box, and only
        there) is correlated over the steps of an episode, see :class:`~sb3_dqs.exploration.CorrelatedNoise`, and fades into
        white noise over the first ``cooling_updates``; ``"white"`` (default of paper) is drawn anew at every step, as
        ``predict()`` always does
    :param use_cuda_graph: on a GPU, record the update once as a CUDA graph and replay it, which spares the host most of its
        work; goes well with :class:`~sb3_dqs.buffers.DeviceReplayBuffer`. Elsewhere, or where the update cannot be
        recorded, a warning says so and updates run as ever. Learning rate and temperature follow their schedules; another
        ``gamma``, ``tau`` or ``actor_batch_size`` during training has no effect on what was recorded.
    :param stats_window_size: Window size for the rollout logging, specifying the number of episodes to average
        the reported success rate, mean episode length, and mean reward over
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, see
        :class:`~sb3_dqs.policies.DiffusionPolicy`
    :param verbose: Verbosity level: 0 for no output, 1 for info messages (such as device or wrappers used), 2 for
        debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
        Setting it to auto, the code will be run on the GPU if possible.
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: if a setting is out of range, unknown, or without effect in the chosen diffusion
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: DiffusionPolicy
    actor: DiffusionActor
    critic: ContinuousCritic
    critic_target: ContinuousCritic

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,  # 1e6
        learning_starts: int = 100,
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
        diffusion: str = "box",
        temperature: str | float | Schedule = "auto",
        target_entropy: str | float = "auto",
        initial_temperature: float | None = None,
        cooling_updates: int | None = None,
        score_estimator: str | None = None,
        n_score_samples: int | None = None,
        n_diffusion_steps: int | None = None,
        actor_batch_size: int | None = None,
        policy_delay: int | None = None,
        actor_learning_rate_factor: float | None = None,
        n_action_candidates: int = 1,
        diffusion_kwargs: dict[str, Any] | None = None,
        exploration_noise: str | None = None,
        use_cuda_graph: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        try:
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
                policy_kwargs=policy_kwargs,
                stats_window_size=stats_window_size,
                tensorboard_log=tensorboard_log,
                verbose=verbose,
                device=device,
                seed=seed,
                sde_support=False,
                supported_action_spaces=(spaces.Box,),
                support_multi_env=True,
            )
        except AssertionError as error:  # SB3 asserts that the action space is supported and bounded
            if not hasattr(self, "action_space"):  # an assertion of the environment that is being made
                raise
            raise InputError(f"DQS needs a bounded Box action space; rescale or wrap the environment's. {error}") from error

        self.diffusion = diffusion
        self.temperature = temperature
        self.target_entropy = target_entropy
        self.initial_temperature = initial_temperature
        self.cooling_updates = cooling_updates
        self.score_estimator = score_estimator
        self.n_score_samples = n_score_samples
        self.n_diffusion_steps = n_diffusion_steps
        self.actor_batch_size = actor_batch_size
        self.policy_delay = policy_delay
        self.actor_learning_rate_factor = actor_learning_rate_factor
        self.n_action_candidates = n_action_candidates
        self.diffusion_kwargs = diffusion_kwargs
        self.exploration_noise = exploration_noise
        self.use_cuda_graph = use_cuda_graph

        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._check_settings()
        # The policy gets the diffusion's settings beside the user's policy_kwargs, which stay as they were given
        user_policy_kwargs = self.policy_kwargs
        self.policy_kwargs = {**user_policy_kwargs, **self._diffusion_policy_kwargs()}
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs = user_policy_kwargs
        self._create_aliases()
        self.batch_norm_stats = get_parameters_by_name(self.critic, ["running_"])
        self.batch_norm_stats_target = get_parameters_by_name(self.critic_target, ["running_"])
        self._setup_temperature()
        self.correlated_noise: CorrelatedNoise | None = None
        self.graphed_update: GraphedUpdate[ReplayBufferSamples | DictReplayBufferSamples] | None = None
        if self.use_cuda_graph and self.device.type == "cuda":
            self.graphed_update = GraphedUpdate(self._update, CudaRecorder(self.device))

    def _check_settings(self) -> None:
        check_choice("diffusion", self.diffusion, DIFFUSIONS)
        if self.n_steps > 1 and self.replay_buffer_class is DeviceReplayBuffer:
            raise InputError(f"DeviceReplayBuffer has one-step returns, n_steps={self.n_steps} needs SB3's default buffer")
        if self.policy_delay is not None:
            check_integer("policy_delay", self.policy_delay, 1, "1 updates actor and critic together")
        if self.actor_learning_rate_factor is not None:
            check_positive("actor_learning_rate_factor", self.actor_learning_rate_factor, "1 gives both the same rate")
        check_integer("n_action_candidates", self.n_action_candidates, 1, "1 switches the ranking by Q off")
        if self.actor_batch_size is not None:
            check_integer("actor_batch_size", self.actor_batch_size, 1, "None takes the default of the diffusion")
            if self.actor_batch_size > self.batch_size:
                raise InputError(
                    f"actor_batch_size must be at most batch_size={self.batch_size}, got {self.actor_batch_size}; "
                    "the regression points are rows of the critic's batch, so raise batch_size as well"
                )
        self._check_diffusion_settings()
        self._check_exploration_noise()
        self._check_temperature_settings()

    def _check_diffusion_settings(self) -> None:
        taken = sorted(set(self._diffusion_policy_kwargs()) & set(self.policy_kwargs))
        if taken:
            raise InputError(f"policy_kwargs must not hold {taken}; pass them as arguments of DQS")
        for name in self.diffusion_kwargs or {}:
            if hasattr(self, name):
                raise InputError(f"diffusion_kwargs must not hold {name!r}; pass {name}=... to DQS itself")
        known = {name: list(inspect.signature(diffusion).parameters)[4:] for name, diffusion in DIFFUSIONS.items()}
        for name in self._diffusion_policy_kwargs()["diffusion_kwargs"]:
            others = [other for other, settings in known.items() if name in settings and name not in known[self.diffusion]]
            if others:
                raise InputError(
                    f"{name} is a setting of diffusion={others[0]!r} and has no effect with diffusion={self.diffusion!r}; "
                    f"leave it out, or choose diffusion={others[0]!r}"
                )
            check_choice(f"each setting of diffusion={self.diffusion!r}", name, known[self.diffusion])

    def _check_exploration_noise(self) -> None:
        if self.exploration_noise is None:
            return
        check_choice("exploration_noise", self.exploration_noise, EXPLORATION_NOISES)
        if self.diffusion == "paper" and self.exploration_noise != "white":
            raise InputError(
                f"exploration_noise={self.exploration_noise!r} needs a sampler without noise of its own; leave it out, or "
                "choose diffusion='box'"
            )

    def _chosen_exploration_noise(self) -> str:
        return self.exploration_noise or DIFFUSIONS[self.diffusion].DEFAULT_EXPLORATION_NOISE

    def _check_temperature_settings(self) -> None:
        greedy = "for near-greedy actions use a small value such as 0.01"
        if isinstance(self.temperature, str):
            check_choice("temperature", self.temperature, ["auto"])
        elif callable(self.temperature):
            for progress_remaining in (1.0, 0.0):
                check_positive("temperature", self.temperature(progress_remaining), greedy)
        else:
            check_positive("temperature", self.temperature, greedy)
        if self.target_entropy != "auto":
            largest = math.log(2) * get_action_dim(self.action_space)
            if not is_finite_number(self.target_entropy) or self.target_entropy >= largest:  # type: ignore[operator]
                raise InputError(
                    f"target_entropy must be 'auto' or a number < {largest:.2f} nats, the entropy of uniform actions, got "
                    f"{self.target_entropy!r}; -0.5 per action dimension is the default"
                )
        if self.initial_temperature is not None:
            check_positive("initial_temperature", self.initial_temperature, "3.0 is the default")
        if self.cooling_updates is not None:
            check_integer("cooling_updates", self.cooling_updates, 0, "0 starts with the final entropy target")
        if self.temperature != "auto" or self.diffusion == "paper":
            without_effect = {"target_entropy": "auto", "initial_temperature": None}
            if self._chosen_exploration_noise() == "white":
                without_effect["cooling_updates"] = None
            for name, default in without_effect.items():
                if getattr(self, name) not in (None, "auto"):
                    raise InputError(
                        f"{name}={getattr(self, name)!r} has no effect without the automatic temperature; leave it out (to "
                        f"load a model that was saved with it: load(..., {name}={default!r})), or choose diffusion='box' and "
                        "temperature='auto'"
                    )

    def _diffusion_policy_kwargs(self) -> dict[str, Any]:
        named_settings = {
            "score_estimator": self.score_estimator,
            "n_score_samples": self.n_score_samples,
            "n_diffusion_steps": self.n_diffusion_steps,
        }
        given_settings = {name: value for name, value in named_settings.items() if value is not None}
        return {
            "diffusion": self.diffusion,
            "diffusion_kwargs": {**(self.diffusion_kwargs or {}), **given_settings},
            "n_action_candidates": self.n_action_candidates,
        }

    def _setup_temperature(self) -> None:
        self.action_dim = get_action_dim(self.action_space)
        # With a schedule, the temperature is set from it before every round of updates; without, the thermostat steers it
        self.temperature_schedule: FloatSchedule | None = None
        if not isinstance(self.temperature, str):
            constant_or_schedule = self.temperature if callable(self.temperature) else float(self.temperature)
            self.temperature_schedule = FloatSchedule(constant_or_schedule)
        elif self.diffusion == "paper":
            self.temperature_schedule = FloatSchedule(PAPER_TEMPERATURE)
        is_auto = self.target_entropy == "auto"
        self.entropy_goal = AUTO_ENTROPY_PER_DIMENSION * self.action_dim if is_auto else float(self.target_entropy)

        self.thermostat = Thermostat(self._start_temperature(), self.action_dim).to(self.device)

    def _start_temperature(self) -> float:
        if self.temperature_schedule is not None:
            return self.temperature_schedule(1.0)
        return DEFAULT_INITIAL_TEMPERATURE if self.initial_temperature is None else self.initial_temperature

    def _create_aliases(self) -> None:
        self.actor = self.policy.actor
        self.critic = self.policy.critic
        self.critic_target = self.policy.critic_target

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        environments_restart = reset_num_timesteps or self._last_obs is None
        if self._chosen_exploration_noise() == "white":
            self.correlated_noise = None
        elif environments_restart or self.correlated_noise is None:
            self.correlated_noise = CorrelatedNoise(self.n_envs, self.action_dim, self.device)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.correlated_noise is None:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        with self.actor.starting_from(self.correlated_noise.step(persistent_share=1 - self._cooled_share())):
            return super()._sample_action(learning_starts, action_noise, n_envs)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        if self.correlated_noise is not None and dones.any():
            self.correlated_noise.restart(th.as_tensor(dones, dtype=th.bool, device=self.device))

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        self._follow_temperature_schedule()

        metrics: dict[str, dict[int, th.Tensor]] = defaultdict(dict)
        update = self._update if self.graphed_update is None else self.graphed_update
        policy_delay = self.actor.diffusion.DEFAULT_POLICY_DELAY if self.policy_delay is None else self.policy_delay
        for _ in range(gradient_steps):
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
            self._n_updates += 1
            if self.temperature_schedule is None:
                self.thermostat.aim_at(self._current_target_entropy())
            for name, value in update(replay_data, self._n_updates % policy_delay == 0).items():
                metrics[name][self._n_updates] = value

        self._check_and_log(metrics)

    def _update(self, replay_data: ReplayBufferSamples | DictReplayBufferSamples, is_actor_update: bool) -> Metrics:
        # What changes between updates is in tensors, and nothing waits for the device: a CUDA graph replays this
        next_actions = self._sample_next_actions(replay_data)
        metrics = self._update_critic(replay_data, next_actions)
        if is_actor_update:
            metrics |= self._update_actor(replay_data, next_actions)
        self._update_target_network()
        return metrics

    def _sample_next_actions(self, replay_data: ReplayBufferSamples | DictReplayBufferSamples) -> th.Tensor:
        with th.no_grad():
            return self.actor(replay_data.next_observations)

    def _update_critic(self, replay_data: ReplayBufferSamples | DictReplayBufferSamples, next_actions: th.Tensor) -> Metrics:
        # For n-step replay, discount factor is gamma**n_steps (when no early termination)
        discounts = replay_data.discounts if replay_data.discounts is not None else self.gamma
        with th.no_grad():
            next_q_values = th.cat(self.critic_target(replay_data.next_observations, next_actions), dim=1)
            next_q_values = next_q_values.amin(dim=1, keepdim=True)
            # No entropy term: the paper's backup
            target_q_values = replay_data.rewards + (1 - replay_data.dones) * discounts * next_q_values

        current_q_values = self.critic(replay_data.observations, replay_data.actions)
        critic_loss = 0.5 * th.stack([F.mse_loss(current_q, target_q_values) for current_q in current_q_values]).sum()
        self.critic.optimizer.zero_grad()
        critic_loss.backward()
        self.critic.optimizer.step()
        return {
            "critic_loss": critic_loss.detach(),
            "mean_q": th.stack(current_q_values).detach().mean(),
            "wall_share": (next_actions.abs() > WALL).to(next_actions.dtype).mean(),
        }

    def _update_actor(self, replay_data: ReplayBufferSamples | DictReplayBufferSamples, next_actions: th.Tensor) -> Metrics:
        # The first regression points are pairs (s', a') just drawn from the policy for the TD target, which are free and
        # which the entropy is read from; the others are replay pairs.
        n_points = self._n_regression_points(len(next_actions))
        n_on_policy = math.ceil(self.actor.diffusion.ON_POLICY_SHARE * n_points)
        on_policy, replayed = regression_rows(replay_data.dones, n_on_policy, n_points - n_on_policy)
        observations = _concatenate(
            _select(replay_data.next_observations, on_policy), _select(replay_data.observations, replayed)
        )
        actions = th.cat([next_actions[on_policy], replay_data.actions[replayed]])

        features = self.actor.extract_features(observations, self.actor.features_extractor)
        regression = self.actor.diffusion.regress(
            features, actions, n_on_policy, min_q_fn(self.critic, observations), self.thermostat.temperature
        )
        self.actor.optimizer.zero_grad()
        regression.loss.backward()
        self.actor.optimizer.step()

        metrics = {"actor_loss": regression.loss.detach(), "effective_sample_size": regression.effective_sample_size}
        if regression.q_spread is not None:
            assert regression.entropy is not None
            assert regression.policy_entropy is not None
            metrics["entropy"] = regression.entropy / self.action_dim
            metrics["policy_entropy"] = regression.policy_entropy / self.action_dim
            metrics["q_spread"] = regression.q_spread
            if self.temperature_schedule is None:
                self.thermostat.measure(regression.q_spread, regression.entropy, regression.policy_entropy)
                self.thermostat.step()
        return metrics

    def _n_regression_points(self, batch_size: int) -> int:
        wanted = self.actor.diffusion.DEFAULT_BATCH_SIZE if self.actor_batch_size is None else self.actor_batch_size
        return batch_size if wanted is None else min(wanted, batch_size)

    def _current_target_entropy(self) -> float:
        return cooling_entropy_target(self._cooled_share(), self.entropy_goal, self.action_dim)

    def _cooled_share(self) -> float:
        cooling_updates = DEFAULT_COOLING_UPDATES if self.cooling_updates is None else self.cooling_updates
        return cooled_share(self._n_updates, cooling_updates)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        super()._update_learning_rate(optimizers)
        if self.actor.optimizer in optimizers:
            factor = self.actor_learning_rate_factor
            factor = self.actor.diffusion.DEFAULT_LEARNING_RATE_FACTOR if factor is None else factor
            for group in self.actor.optimizer.param_groups:
                group["lr"] *= factor
        if self.graphed_update is not None:
            self.graphed_update.prepare_optimizers([self.actor.optimizer, self.critic.optimizer])

    def _follow_temperature_schedule(self) -> None:
        if self.temperature_schedule is not None:
            # the last round of steps may go beyond the end
            self.thermostat.follow(self.temperature_schedule(max(self._current_progress_remaining, 0.0)))

    def _update_target_network(self) -> None:
        # polyak_update of SB3 in one pass over all parameters
        average = get_ema_multi_avg_fn(1 - self.tau)
        average(list(self.critic_target.parameters()), list(self.critic.parameters()), None)
        # Copy running stats, see GH issue #996
        polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)

    def _check_and_log(self, metrics: dict[str, dict[int, th.Tensor]]) -> None:
        """
        Log the mean of each metric over this round of updates; one transfer from the device for all of them.

        :param metrics: name -> number of the update -> value
        """
        names = list(metrics)
        rounds = [th.stack(list(metrics[name].values())) for name in names]
        *means, temperature = th.stack([*(values.mean() for values in rounds), self.thermostat.temperature]).tolist()
        for name, mean, values in zip(names, means, rounds, strict=True):
            if not math.isfinite(mean):
                first_bad = int((~th.isfinite(values)).nonzero()[0])
                self._raise_non_finite(name, list(metrics[name])[first_bad])
            self.logger.record(f"train/{name}", mean)
        self.logger.record("train/temperature", temperature)
        if self.temperature_schedule is None:
            self.logger.record("train/target_entropy", self._current_target_entropy() / self.action_dim)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _raise_non_finite(self, name: str, n_update: int) -> None:
        # ValueError prunes an Optuna trial
        raise InputError(
            f"{name} is not finite at update {n_update}, temperature "
            f"{self.thermostat.temperature.item():.3g}. Look for NaN or infinite rewards and observations (SB3's "
            "VecCheckNan finds them); else try a smaller learning_rate, or VecNormalize for observations and rewards. "
            "The model can still be saved."
        )

    def learn(
        self: SelfDQS,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "DQS",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDQS:
        if self.use_cuda_graph and self.graphed_update is None:
            warnings.warn(f"use_cuda_graph=True has no effect on {self.device}: updates run eagerly", stacklevel=2)
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        super().set_parameters(load_path_or_dict, exact_match, device)
        # A temperature that was scheduled when the parameters were saved is no start for an automatic one
        if self.temperature_schedule is None and self.thermostat.n_measurements == 0:
            self.thermostat.follow(self._start_temperature())
        # The parameters may come from a recorded run, and the optimisers' states have new places
        for optimizer in (self.actor.optimizer, self.critic.optimizer):
            for group in optimizer.param_groups:
                let_wait(group)
        if self.graphed_update is not None:
            self.graphed_update.forget()

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "graphed_update",
            "correlated_noise",
            "actor",
            "critic",
            "critic_target",
            "batch_norm_stats",
            "batch_norm_stats_target",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "actor.optimizer", "critic.optimizer", "thermostat"], []


def regression_rows(dones: th.Tensor, n_on_policy: int, n_replayed: int) -> tuple[th.Tensor, th.Tensor]:
    """
    Which rows of a batch become regression points? Random ones, since hindsight replay puts the real goals first.

    The next observations of terminal rows come last: no TD target ever asks for their values, so the critic has none.

    :param dones: (batch_size, 1), 1 where the next observation is terminal
    :param n_on_policy: number of rows to take next observations from, at most batch_size
    :param n_replayed: number of rows to take observations from, at most batch_size
    :return: indices (n_on_policy,) and (n_replayed,); disjoint if at least ``n_on_policy + n_replayed`` rows are not terminal
    """
    is_terminal = dones.squeeze(1)
    rank = th.rand_like(is_terminal)
    return (rank + is_terminal).argsort()[:n_on_policy], rank.argsort(descending=True)[:n_replayed]


def _select(observations: PyTorchObs, rows: th.Tensor) -> PyTorchObs:
    if isinstance(observations, dict):
        return {key: values[rows] for key, values in observations.items()}
    return observations[rows]


def _concatenate(first: PyTorchObs, second: PyTorchObs) -> PyTorchObs:
    if isinstance(first, dict):
        assert isinstance(second, dict)
        return {key: th.cat([first[key], second[key]]) for key in first}
    assert isinstance(second, th.Tensor)
    return th.cat([first, second])
