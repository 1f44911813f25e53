"""How does DQS learn? Settings, and ``train()`` as a table of contents over critic, actor and temperature updates."""

import math
from typing import Any, ClassVar, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, PyTorchObs, Schedule
from stable_baselines3.common.utils import update_learning_rate

from sb3_dqs import answers, replay, settings
from sb3_dqs.checks import SpaceError
from sb3_dqs.critics import (
    Batch,
    evaluating,
    observations_to_go_on_from,
    smallest_q_fn,
    td_loss,
    td_targets,
    transition_values,
)
from sb3_dqs.exploration import ExploringAlgorithm
from sb3_dqs.live_settings import LiveSettings
from sb3_dqs.policies import CnnPolicy, DiffusionActor, DiffusionPolicy, MlpPolicy, MultiInputPolicy
from sb3_dqs.regression_points import regression_points
from sb3_dqs.temperature import MEASURED, AutomaticTemperature, ScheduledTemperature, Temperature, cooled_share
from sb3_dqs.update_log import UpdateLog

SelfDQS = TypeVar("SelfDQS", bound="DQS")

Scalars = dict[str, th.Tensor]

# An action coordinate beyond this share of the box counts as being at the wall: draws of the refiner spread from there
WALL = 0.9


class DQS(LiveSettings, ExploringAlgorithm):
    """
    Diffusion Q-Sampling (DQS)

    Off-policy actor-critic whose policy is the Boltzmann law exp(Q(s, a) / temperature) on the action box, sampled by a
    diffusion model that is trained from the critic alone.
    Paper: https://arxiv.org/abs/2410.01312; as published: :class:`~sb3_dqs.paper.PaperDQS`

    A setting that is changed on a live model acts from then on; one that is built into it raises an error.

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, ...)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: learning rate of the critic, and times ``actor_learning_rate_factor`` of the actor;
        it can be a function of the current progress remaining (from 1 to 0)
    :param buffer_size: size of the replay buffer
    :param learning_starts: how many steps of the model to collect transitions for before learning starts
    :param batch_size: Minibatch size for each gradient update of the critic
    :param tau: the soft update coefficient ("Polyak update", between 0 and 1) of a target network; 1, the default, is none:
        values at both ends of a transition come from the critic itself, in one joint pass
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
    :param temperature: of the policy, in units of Q: a float > 0, an SB3 schedule (for instance
        :class:`~sb3_dqs.temperature.LogLinearSchedule`), or ``"auto"``: learned, so that the entropy follows its target
    :param target_entropy: entropy that ``temperature="auto"`` holds the policy at, in nats for the whole action vector on
        the [-1, 1] box, of one mode of it, see :class:`~sb3_dqs.diffusion.refiner.Refiner`; ``"auto"`` is -1 per action
        dimension
    :param policy_tau: the soft update coefficient, in (0, 1], of the averaged critic that the policy follows: at a low
        temperature exp(Q / temperature) of the critic itself jumps with each of its updates. 1 is no average.
    :param actor_tau: the soft update coefficient, in (0, 1], of the averaged actor that ``predict()`` asks, per update of the
        actor; larger early on, see :func:`~sb3_dqs.averaging.polynomial_decay_share`. The actor itself explores. 1 is no
        average. Weights that are set by hand are for ``policy.actor`` and ``policy.actor_average``.
    :param cooling_updates: the entropy target falls linearly from that of a nearly uniform policy to ``target_entropy`` over
        this many updates of the critic, or over the first half of the run, see :meth:`learn`, if that is shorter; 0 to start
        with the final target. Correlated exploration fades meanwhile. With n environments and ``gradient_steps=-1`` each takes
        one step per n updates: where goals are hard to find, multiply by n. What had cooled stays so in a loaded model, unless
        it is given another value. With a temperature that is set, only correlated exploration follows it.
    :param n_score_samples: actions per regression point of the actor at which the critic is asked, even
    :param n_diffusion_steps: passes of the diffusion's network per single draw, the refiner takes one more; candidates of
        ``predict()`` take about half as many, 3 by default
    :param actor_batch_size: regression points per actor update; at most the ``batch_size`` rows of the critic's batch
    :param policy_delay: update actor and temperature every this many critic updates
    :param actor_learning_rate_factor: learning rate of the actor over that of the critic, > 0
    :param n_action_candidates: of ``predict()``: a sampled action is one of so many of the actor, by weights that bring it to
        exp(Q / temperature), the deterministic one the best by Q of as many
    :param n_corrector_proposals: proposals around each action that is taken in training or sampled by ``predict()``, one of
        which may take its place, by a step that leaves exp(Q / temperature) as it is; 0 for none
    :param exploration_correlation_time: steps over which the actions that ``learn()`` takes stay correlated within an episode,
        see :class:`~sb3_dqs.exploration.CorrelatedNoise`, until the cooling is over; 0 for independent actions
    :param component_kwargs: rarely changed arguments of the parts: ``{"diffusion": {...}, "refiner": {...},
        "corrector": {...}, "temperature": {...}}`` of :class:`~sb3_dqs.diffusion.box.BoxDiffusion`,
        :class:`~sb3_dqs.diffusion.refiner.Refiner`, :class:`~sb3_dqs.diffusion.corrector.Corrector`, and
        :class:`~sb3_dqs.temperature.AutomaticTemperature` or :class:`~sb3_dqs.temperature.ScheduledTemperature`
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
    :raises ValueError: if a setting is out of range, unknown, or without effect
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    # keys of component_kwargs
    components: ClassVar[tuple[str, ...]] = ("corrector", "diffusion", "refiner", "temperature")
    learns_temperature: ClassVar[bool] = True
    policy: DiffusionPolicy
    actor: DiffusionActor
    critic: Any
    critic_target: Any
    thermostat: Temperature

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,  # 1e6
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 1.0,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        temperature: str | float | Schedule = "auto",
        target_entropy: str | float = "auto",
        policy_tau: float = 0.01,
        actor_tau: float = 2e-3,
        cooling_updates: int = 5_000,
        n_score_samples: int = 8,
        n_diffusion_steps: int = 5,
        actor_batch_size: int = 128,
        policy_delay: int = 3,
        actor_learning_rate_factor: float = 2.0,
        n_action_candidates: int = 8,
        n_corrector_proposals: int = 8,
        exploration_correlation_time: float = 16.0,
        component_kwargs: dict[str, dict[str, Any]] | None = None,
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
            raise SpaceError(f"DQS needs a bounded Box action space; rescale or wrap the environment's. {error}") from error

        self.temperature = temperature
        self.target_entropy = target_entropy
        self.policy_tau = policy_tau
        self.actor_tau = actor_tau
        self.cooling_updates = cooling_updates
        self.n_score_samples = n_score_samples
        self.n_diffusion_steps = n_diffusion_steps
        self.actor_batch_size = actor_batch_size
        self.policy_delay = policy_delay
        self.actor_learning_rate_factor = actor_learning_rate_factor
        self.n_action_candidates = n_action_candidates
        self.n_corrector_proposals = n_corrector_proposals
        self.exploration_correlation_time = exploration_correlation_time
        self.component_kwargs = component_kwargs
        # how far the cooling has come: it goes back only where ``cooling_updates`` is changed, or parameters are loaded
        self.cooled_share = 0.0
        # since which update it counts: the first one, unless parameters of another time have been loaded
        self.cooling_began_at = 0.0
        # what learn() was asked for when the run began, of which later calls may be pieces
        self.steps_in_run = 0

        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._is_set_up = False
        settings.settle(self)
        # SB3 gets more than the user gave: the diffusion's settings, and those of the buffer's returns
        policy_kwargs = {**self.policy_kwargs, **settings.policy_settings(self)}
        with self.holding(policy_kwargs=policy_kwargs, **replay.replay_buffer_settings(self)):
            super()._setup_model()
        settings.check_critic(self)
        self.policy.set_training_mode(False)
        self.actor = self.policy.actor
        self.critic = self.policy.critic
        self.critic_target = self.policy.critic_target
        self.action_dim = get_action_dim(self.action_space)
        self._setup_temperature()
        self.exploration_noise = None
        self._is_set_up = True

    def _setup_temperature(self) -> None:
        kind: type[Temperature]
        given: dict[str, Any]
        if self.temperature == "auto":
            entropy_range = self.actor.refiner.entropy_range()
            kind = AutomaticTemperature
            given = {"action_dim": self.action_dim, "target_entropy": self.target_entropy, "entropy_range": entropy_range}
        else:
            kind, given = ScheduledTemperature, {"schedule": self.temperature}
        thermostat = kind(**given, **settings.component_kwargs(self, "temperature", kind, given))
        if "thermostat" in self.__dict__:  # of a live model, whose temperature is being changed
            thermostat.load_state_dict(self.thermostat.state_dict())
        # a model that is loaded, or changed, is somewhere on its schedule
        thermostat.start_round(self._current_progress_remaining)
        self.thermostat = thermostat.to(self.device)
        self.policy.follow_temperature(self.thermostat.value)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        self._update_learning_rate(self.critic.optimizer)
        learning_rate = self.critic.optimizer.param_groups[0]["lr"]
        settings.check_learning_rate(learning_rate)
        update_learning_rate(self.actor.optimizer, self.actor_learning_rate_factor * learning_rate)
        self.thermostat.start_round(self._current_progress_remaining)

        log = UpdateLog()
        with self.policy.learning():
            for step in range(gradient_steps):
                batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
                if step == 0:
                    answers.check_batch(batch)
                self._n_updates += 1
                self.cooled_share = max(self.cooled_share, self._cooled_share_by_now())
                self.thermostat.start_update(self.cooled_share)
                log.add(self._n_updates, self._update(batch, is_actor_update=self._n_updates % self.policy_delay == 0))

        for name, value in log.means(self.thermostat.logged()).items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _cooled_share_by_now(self) -> float:
        steps_done, steps_in_run = (n - self.learning_starts for n in (self.num_timesteps, self.steps_in_run))
        return cooled_share(self._n_updates - self.cooling_began_at, self.cooling_updates, steps_done, steps_in_run)

    def _update(self, batch: Batch, is_actor_update: bool) -> Scalars:
        # What changes between updates is in tensors, and nothing waits for the device: a CUDA graph can replay this
        next_observations = observations_to_go_on_from(batch)
        with th.no_grad():
            next_actions = self.actor(next_observations)
        scalars = self._update_critic(batch, next_observations, next_actions)
        scalars["wall_share"] = (next_actions.abs() > WALL).to(next_actions.dtype).mean()
        self.policy.update_average_of_critic(self.policy_tau)
        if is_actor_update:
            scalars |= self._update_actor(batch, next_observations, next_actions)
        self.policy.update_target(self.tau)
        self.policy.follow_temperature(self.thermostat.value)
        return scalars

    def _update_critic(self, batch: Batch, next_observations: PyTorchObs, next_actions: th.Tensor) -> Scalars:
        q_values, next_q_values = transition_values(
            self.critic, self.critic_target, batch.observations, batch.actions, next_observations, next_actions
        )
        # For n-step replay, discount factor is gamma**n_steps (when no early termination)
        discounts = batch.discounts if batch.discounts is not None else self.gamma
        loss = td_loss(q_values, td_targets(batch.rewards, batch.dones, discounts, next_q_values))
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()
        return {
            "critic_loss": loss.detach(),
            "mean_q": th.stack(tuple(q_values)).detach().mean(),
        }

    def _update_actor(self, batch: Batch, next_observations: PyTorchObs, next_actions: th.Tensor) -> Scalars:
        share = self.actor.diffusion.on_policy_share
        points = regression_points(batch, next_observations, next_actions, self.actor_batch_size, share)
        # in training mode, though the critic, which may share the extractor, is only asked
        features = self.actor.extract_features(points.observations, self.actor.features_extractor)
        with evaluating(self.policy.law_critic):
            q_fn = smallest_q_fn(self.policy.law_critic, points.observations)
            regressions = self.actor.regress(features, points.actions, points.n_on_policy, q_fn, self.thermostat.value)
        self.actor.optimizer.zero_grad()
        th.stack([regression.loss for regression in regressions]).sum().backward()
        self.actor.optimizer.step()
        self.policy.update_average_of_actor(self.actor_tau)
        measures = {name: value for regression in regressions for name, value in regression.measures.items()}
        self.thermostat.observe(measures)
        return {
            # that of the diffusion: the refiner's has no zero to go to
            "actor_loss": regressions[0].loss.detach(),
            # the others are means of the temperature
            **{name: value for name, value in measures.items() if name not in MEASURED},
        }

    def learn(
        self: SelfDQS,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "DQS",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDQS:
        """
        As in SB3. With ``reset_num_timesteps=True`` a run begins, of ``total_timesteps``, and the cooling is shortened if it
        would not fit; with ``False`` a run goes on, and the cooling does not depend on how long this piece of it is. To train
        in pieces, pass ``False`` to all of them, the first one included.
        """
        replay.check_replay_buffer(self)
        replay.fit_parts(self)
        if reset_num_timesteps:
            self.steps_in_run = total_timesteps
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # the last round of steps may go beyond the end, where a linear schedule is negative
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: th.device | str = "auto") -> None:
        super().set_parameters(load_path_or_dict, exact_match, device)
        if isinstance(load_path_or_dict, dict) and "thermostat" not in load_path_or_dict:
            return  # the policy alone brings the temperature that it was trained for
        share = float(self.thermostat.cooled_share)
        if not math.isclose(share, self.cooled_share, rel_tol=1e-6):  # load() has read it to the last bit
            # goes on from there, by updates alone: the run has been asked for with other parameters
            self.cooled_share, self.steps_in_run = share, 0
            self.cooling_began_at = self._n_updates - share * self.cooling_updates
        # the policy was saved with the temperature of then, which may be loaded with another one
        self.policy.follow_temperature(self.thermostat.value)

    def _excluded_save_params(self) -> list[str]:
        aliases = ["actor", "critic", "critic_target"]
        return [*super()._excluded_save_params(), *aliases, "exploration_noise", "_is_set_up"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "actor.optimizer", "critic.optimizer", "thermostat"], []
