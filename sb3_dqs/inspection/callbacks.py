"""How does the policy change while it learns? Pictures in TensorBoard and measures in the log, at fixed intervals."""

import random
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, JSONOutputFormat, Logger
from stable_baselines3.common.logger import Figure as LoggedFigure
from stable_baselines3.common.utils import set_random_seed

from sb3_dqs.checks import InputError, as_integer
from sb3_dqs.dqs import DQS
from sb3_dqs.inspection.evaluation import (
    can_compare_to_critic,
    check_draws,
    check_observation,
    distances_to_critic,
    goals_of,
    roll_out,
)
from sb3_dqs.inspection.plotting import (
    COURSE,
    checked_dimensions,
    plot_critic,
    plot_denoising_paths,
    plot_roll_outs,
    plot_training_course,
)
from sb3_dqs.settings import some_observations

# Formats of the logger that cannot hold a picture, by name and by class
NOT_IN = ("stdout", "log", "json", "csv")
WITHOUT_PICTURES = (HumanOutputFormat, JSONOutputFormat, CSVOutputFormat)


class FigureCallback(BaseCallback):
    """
    Log pictures to TensorBoard: ``figures/critic``, ``figures/denoising``, ``figures/roll_outs`` and ``figures/training``.

    Random numbers are drawn aside: the course of training is the same with and without the pictures, and in every round the
    episodes start at the same states. Each round dumps the logger.

    :param every: steps of the environment between two rounds of pictures, counted over all environments
    :param observation: at which critic and sampling are shown, one of the environment: ``VecNormalize``, if any, is applied;
        the first one met in training by default
    :param roll_out_env: id of an environment that has an ``arena``, for traces of the policy; without it, none are drawn
    :param n_episodes: number of traces
    :param dimensions: one or two action coordinates that critic and sampling are shown over; the first two by default
    :param course_every: steps between two points of the course of training
    :param seed: of all random numbers of a round
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :raises ValueError: if a number is not an integer >= 1 (the seed: >= 0), or the environment has no arena; as training
        starts, if the model cannot act in the environment or at the observation, or nothing keeps pictures
    """

    model: DQS

    def __init__(
        self,
        every: int,
        observation: np.ndarray | dict[str, np.ndarray] | None = None,
        roll_out_env: str | None = None,
        n_episodes: int = 30,
        dimensions: tuple[int, ...] | None = None,
        course_every: int = 100,
        seed: int = 0,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        self.every = as_integer("every", every, 1, "5000 draws four rounds in 20,000 steps")
        self.course_every = as_integer("course_every", course_every, 1, "100 is the default")
        self.seed = as_integer("seed", seed, 0, "0 is the default")
        self.given_observation = observation
        self.observation = observation
        self.followed_model: DQS | None = None
        self.dimensions = dimensions
        self.envs = _with_arena(roll_out_env, as_integer("n_episodes", n_episodes, 1, "30 is the default"))
        self.course: dict[str, list[float]] = defaultdict(list)
        self.last_course_step, self.last_figure_step = 0, 0

    def _on_training_start(self) -> None:
        # not only at the first round, thousands of steps later
        if not isinstance(self.model, DQS):
            raise InputError(f"FigureCallback draws DQS, got {type(self.model).__name__}; MultimodalityCallback takes any")
        checked_dimensions(self.dimensions, self.model.action_dim)
        _check_spaces(self.envs, self.model)
        if all(isinstance(output, WITHOUT_PICTURES) for output in self.logger.output_formats):
            raise InputError(
                "FigureCallback needs TensorBoard to keep its pictures: pass tensorboard_log='runs' to DQS, or -tb runs to "
                "sb3-dqs train; the trials of a search have none"
            )
        if self.model is not self.followed_model:
            self.followed_model = self.model
            self.course.clear()
            self.observation = self.given_observation
        if self.observation is None:
            self.observation = last_observation(self.model)
        check_observation(self.model, self.observation)
        if self.course["steps"] and self.course["steps"][-1] > self.num_timesteps:  # another run
            self.course.clear()
        self.last_course_step = self.last_figure_step = self.num_timesteps

    def _on_step(self) -> bool:
        if self.model is not self.followed_model:  # called by another callback that has not told when training started
            self._on_training_start()
            self.last_figure_step = -self.every
        # several environments take several steps at a time
        n_steps_since = self.num_timesteps - self.last_course_step
        if n_steps_since >= self.course_every and self._note_course():
            self.last_course_step += n_steps_since // self.course_every * self.course_every
        if self.num_timesteps - self.last_figure_step >= self.every:
            self.last_figure_step = self.num_timesteps
            self._draw()
        return True

    def _on_training_end(self) -> None:
        if self.last_figure_step < self.num_timesteps:
            self._draw()

    def _note_course(self) -> bool:
        logged = self.logger.name_to_value
        if "train/temperature" not in logged:
            return False  # another callback has emptied the logger just now, or learning has not started
        self.course["steps"].append(self.num_timesteps)
        for keys, _ in COURSE.values():
            for key in keys:
                self.course[key].append(float(logged.get(key, np.nan)))
        return True

    def _draw(self) -> None:
        assert self.observation is not None
        figures: dict[str, Any] = {}
        with drawing_aside(self.model.device, self.seed):
            observation = as_the_policy_sees(self.model, self.observation)
            figures["critic"] = plot_critic(self.model, observation, self.dimensions)
            figures["denoising"] = plot_denoising_paths(self.model, observation, dimensions=self.dimensions)
            if self.envs:
                episodes = roll_out(self.model, self.envs, self.seed, deterministic=False)
                arena = self.envs[0].unwrapped.arena  # type: ignore[attr-defined]
                figures["roll_outs"] = plot_roll_outs(arena, [episode.observations for episode in episodes])
        if self.course["steps"]:
            figures["training"] = plot_training_course(self.course)
        for name, figure in figures.items():
            self.logger.record(f"figures/{name}", LoggedFigure(figure, close=True), exclude=NOT_IN)
        dump(self.logger, self.num_timesteps)


class MultimodalityCallback(BaseCallback):
    """
    Log how many good actions the policy keeps, and how close it is to the law that its critic asks for.

    In environments with goals, or modes: ``policy/success``, ``policy/goals_reached`` and ``policy/goal_entropy`` of
    roll-outs. With one or two action dimensions: ``policy/total_variation``, ``policy/mmd`` and ``policy/sliced_w2``
    between sampled actions and the exact Boltzmann law of the critic, and ``policy/total_variation_of_exact_draws``, see
    :func:`~sb3_dqs.inspection.evaluation.distances_to_critic`, mean over observations met lately. Any algorithm of SB3 may be
    measured; what is not defined for it is left out. Random numbers are drawn aside: the course of training is the same
    with and without the callback, equal policies measure equal, and in every round the episodes start at the same states.
    Each round dumps the logger.

    :param every: steps of the environment between two rounds of measures, counted over all environments
    :param roll_out_env: id of an environment that has an ``arena`` with goals or modes, for roll-outs; without it, none are
        measured
    :param n_episodes: number of roll-outs
    :param n_observations: number of observations, spaced evenly over the steps between two rounds
    :param n_actions: samples per observation; 5000 exact draws from a uniform law have a total variation of 0.04 (one action
        dimension) or 0.11 (two) themselves
    :param seed: of all random numbers of a round
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :raises ValueError: if a number is not an integer >= 1 (the seed: >= 0), or the environment has no arena of several goals;
        as training starts, if the model cannot act in it, draws with ``use_sde`` one noise for several actions, or has nothing
        that could be measured
    """

    def __init__(
        self,
        every: int,
        roll_out_env: str | None = None,
        n_episodes: int = 100,
        n_observations: int = 10,
        n_actions: int = 5_000,
        seed: int = 0,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        self.every = as_integer("every", every, 1, "5000 measures four times in 20,000 steps")
        self.n_actions = as_integer("n_actions", n_actions, 2, "5000 is the default")
        self.seed = as_integer("seed", seed, 0, "0 is the default")
        n_observations = as_integer("n_observations", n_observations, 1, "10 is the default")
        self.envs = _with_arena(roll_out_env, as_integer("n_episodes", n_episodes, 1, "100 is the default"))
        if self.envs and len(self.envs[0].unwrapped.arena.goals) < 2:  # type: ignore[attr-defined]
            raise InputError(f"roll_out_env must have several goals to choose among, got {roll_out_env!r}; leave it out")
        self.observations: deque[Any] = deque(maxlen=n_observations)
        self.observe_every = max(self.every // n_observations, 1)
        self.followed_model: BaseAlgorithm | None = None
        self.last_observed_step, self.last_measured_step = 0, 0

    def _on_training_start(self) -> None:
        check_draws(self.model)
        _check_spaces(self.envs, self.model)
        if not self.envs and not can_compare_to_critic(self.model):
            raise InputError(
                f"roll_out_env must be given for {type(self.model).__name__} with actions {self.model.action_space}: without "
                "roll-outs, only DQS, and SAC with an entropy bonus, of one or two action dimensions can be measured"
            )
        if self.model is not self.followed_model:
            self.followed_model = self.model
            self.observations.clear()
        self.last_observed_step = self.last_measured_step = self.num_timesteps

    def _on_training_end(self) -> None:
        if self.last_measured_step < self.num_timesteps and (self.envs or self.observations):
            self._log()

    def _on_step(self) -> bool:
        if self.model is not self.followed_model:  # called by another callback that has not told when training started
            self._on_training_start()
            self.last_observed_step, self.last_measured_step = -self.observe_every, -self.every
        # several environments take several steps at a time
        if self.num_timesteps - self.last_observed_step >= self.observe_every:
            self.last_observed_step = self.num_timesteps
            self.observations.append(last_observation(self.model))
        if self.num_timesteps - self.last_measured_step >= self.every:
            self.last_measured_step = self.num_timesteps
            self._log()
        return True

    def _log(self) -> None:
        for name, value in self._measures().items():
            self.logger.record(f"policy/{name}", value)
        dump(self.logger, self.num_timesteps)

    def _measures(self) -> dict[str, float]:
        measures: dict[str, float] = {}
        with drawing_aside(self.model.device, self.seed):
            if self.observations and can_compare_to_critic(self.model):
                observations = [as_the_policy_sees(self.model, observation) for observation in self.observations]
                measures |= distances_to_critic(self.model, observations, self.n_actions)
            if self.envs:
                goals = goals_of(roll_out(self.model, self.envs, self.seed, deterministic=False), self.envs[0])
                if goals is not None:
                    measures |= {
                        "success": goals.success,
                        "goals_reached": goals.goals_reached,
                        "goal_entropy": goals.goal_entropy,
                    }
        return measures


@contextmanager
def drawing_aside(device: th.device, seed: int) -> Iterator[None]:
    """
    Inside, random numbers of torch, numpy and Python follow from a seed; afterwards their generators are as they were.

    :param device: of the model, whose generator is kept too
    :param seed: >= 0
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices, device_type = ([], "cuda") if device.type == "cpu" else ([device], device.type)
    with th.random.fork_rng(devices, device_type=device_type):
        try:
            set_random_seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def dump(logger: Logger, n_steps: int) -> None:
    """Write what was recorded, as SB3's EvalCallback does: the next round would take its place."""
    logger.record("time/total_timesteps", n_steps, exclude="tensorboard")
    logger.dump(n_steps)


def last_observation(model: BaseAlgorithm) -> Any:
    """
    :param model: that is learning
    :return: a copy of what its first environment has shown last, as it was before ``VecNormalize``, whose statistics move
    """
    vec_normalize = model.get_vec_normalize_env()
    observations = model._last_obs if vec_normalize is None else vec_normalize.get_original_obs()  # type: ignore[attr-defined]
    return first_observation(observations)


def as_the_policy_sees(model: BaseAlgorithm, observation: Any) -> Any:
    """
    :param model: that is learning
    :param observation: of its environment, not batched
    :return: normalised by the statistics of now, where there is a ``VecNormalize``
    """
    vec_normalize = model.get_vec_normalize_env()
    return observation if vec_normalize is None else vec_normalize.normalize_obs(observation)


def first_observation(observations: Any) -> Any:
    """
    :param observations: of several environments, which may write the next ones in their place
    :return: a copy of that of the first
    """
    if isinstance(observations, dict):
        return {key: values[0].copy() for key, values in observations.items()}
    return observations[0].copy()


def _check_spaces(envs: list[gym.Env], model: BaseAlgorithm) -> None:
    """:raises ValueError: if a model that is about to learn cannot act in environments of roll-outs"""
    if not envs:
        return
    space = envs[0].observation_space
    if isinstance(space, spaces.Dict):
        raise InputError("roll_out_env must have observations that are arrays, got Dict; leave it out")
    try:
        model.predict(some_observations(space, len(envs)), deterministic=True)
        can_act = envs[0].action_space == model.action_space
    except ValueError:  # SB3 transposes images, and does not know other shapes
        can_act = False
    if not can_act:
        raise InputError(
            f"roll_out_env has observations {space} and actions {envs[0].action_space}, the model {model.observation_space} "
            f"and {model.action_space}; leave it out, or name the environment that is learned"
        )


def _with_arena(env_id: str | None, n_envs: int) -> list[gym.Env]:
    """Environments of which traces and goals are known."""
    envs = [] if env_id is None else [gym.make(env_id) for _ in range(n_envs)]
    if envs and not hasattr(envs[0].unwrapped, "arena"):
        raise InputError(f"roll_out_env must be an environment with an arena and goals in it, got {env_id!r}; leave it out")
    return envs
