"""Does a policy keep several good actions alive? A plane with four goals around the start, that may be closed or moved."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dqs.checks import InputError, as_integer, check_positive, is_finite_number
from sb3_dqs.envs.arena import Arena, checked_options, checked_vector

GOALS = ((5.0, 0.0), (-5.0, 0.0), (0.0, 5.0), (0.0, -5.0))


class MultiGoalEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    Four-goal arena: a point moves in the plane towards one of the goals (+-5, 0), (0, +-5), of the same worth by default.

    Observation: position, in the arena [-7, 7]^2. Action: displacement, in [-1, 1]^2. Reward: minus the squared distance
    to the nearest open goal, minus ``action_cost`` times the squared length of the action, plus ``goal_reward`` where an open
    goal is reached (within 1), which ends the episode; all times ``reward_scale``. 30 steps at most.
    Source: the multi-goal environment of soft Q-learning, arXiv:1702.08165, as in DACER's code, arXiv:2405.15177; there
    ``action_cost`` is 30. Ours: goals of unequal worth, and goals that are closed or moved.

    :param action_cost: cost of a squared unit of displacement
    :param goal_reward: reward for reaching a goal: one number, or one for each goal
    :param reward_scale: factor on all rewards
    :param start_noise: standard deviation of the start position around the origin, per coordinate
    :param goals: (4, 2), where the goals are
    :param closed: numbers of goals that are as if they were not there, for what a policy does where it has learned otherwise
    :param render_mode: ``"rgb_array"`` or None
    :raises ValueError: if a number is out of range
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    ARENA_HALF_WIDTH = 7.0
    GOAL_RADIUS = 1.0

    def __init__(
        self,
        action_cost: float = 1.0,
        goal_reward: float | Sequence[float] = 10.0,
        reward_scale: float = 0.1,
        start_noise: float = 0.1,
        goals: Sequence[Sequence[float]] = GOALS,
        closed: Sequence[int] = (),
        render_mode: str | None = None,
    ):
        for name, value in (("action_cost", action_cost), ("start_noise", start_noise)):
            if not is_finite_number(value):
                raise InputError(f"{name} must be a finite number, got {value!r}; leave it out for the default")
        if start_noise < 0:
            raise InputError(f"start_noise must be >= 0, got {start_noise!r}; 0 starts at the origin")
        check_positive("reward_scale", reward_scale, "0.1 is the default")
        self.action_cost = action_cost
        self.goals = self._checked_goals(goals)
        n_goals = len(self.goals)
        self.goal_rewards = checked_vector(
            "goal_reward", goal_reward if np.ndim(goal_reward) else [goal_reward] * n_goals, n_goals
        )
        self.is_open = self._open_goals(closed)
        self.reward_scale = reward_scale
        self.start_noise = start_noise
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-self.ARENA_HALF_WIDTH, self.ARENA_HALF_WIDTH, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.arena = Arena(self.ARENA_HALF_WIDTH, self.goals, self.GOAL_RADIUS)
        # of the episode, which options of reset() may change
        self.episode_goals, self.episode_is_open = self.goals, self.is_open
        self.position = np.zeros(2)
        self.trace: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: of the start position
        :param options: for this episode: ``{"start": (x, y)}`` starts from there, without noise; ``"goals"`` and ``"closed"``
            take the place of the arguments of these names
        :return: observation and info
        :raises ValueError: if an option is unknown or cannot be used
        """
        super().reset(seed=seed)
        options = checked_options(options, ("start", "goals", "closed"))
        self.episode_goals = self._checked_goals(options["goals"]) if "goals" in options else self.goals
        self.episode_is_open = self._open_goals(options["closed"]) if "closed" in options else self.is_open
        self.arena = Arena(self.ARENA_HALF_WIDTH, self.episode_goals, self.GOAL_RADIUS)
        if "start" in options:
            self.position = self._inside_arena(checked_vector("start", options["start"], 2))
        else:
            self.position = self.start_noise * self.np_random.standard_normal(2)
        self.trace = [self.position]
        return self._observation(), {}

    def move_goal(self, goal: int, position: Sequence[float]) -> None:
        """
        Change the world, from the next episode on.

        :param goal: its number
        :param position: (x, y), where it is then
        :raises ValueError: if there is no such goal, or the position is outside the arena
        """
        number = as_integer("goal", goal, 0, "goals are counted from 0")
        if number >= len(self.goals):
            raise InputError(f"goal must be one of 0 to {len(self.goals) - 1}, got {goal!r}")
        goals = self.goals.copy()
        goals[number] = checked_vector("position", position, 2)
        self.goals = self._checked_goals(goals)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: (2,), displacement, in [-1, 1]
        :return: observation, reward, terminated, truncated, info with ``goal`` (index of the goal reached, or -1) and
            ``is_success``
        """
        displacement = np.clip(checked_vector("action", action, 2), -1.0, 1.0)
        self.position = self._inside_arena(self.position + displacement)
        self.trace.append(self.position)
        distances = np.linalg.norm(self.episode_goals - self.position, axis=1)
        distances[~self.episode_is_open] = np.inf
        nearest = int(distances.argmin())
        reached = bool(distances[nearest] < self.GOAL_RADIUS)
        reward = -(distances[nearest] ** 2) - self.action_cost * float(displacement @ displacement)
        reward += self.goal_rewards[nearest] * reached
        info = {"goal": nearest if reached else -1, "is_success": reached}
        return self._observation(), float(self.reward_scale * reward), reached, False, info

    def render(self) -> np.ndarray | None:
        """
        :return: (280, 280, 3) image of arena, goals (green), trace (grey) and position (red); None without render mode
        """
        return self.arena.picture(self.trace) if self.render_mode == "rgb_array" else None

    def _checked_goals(self, goals: Any) -> np.ndarray:
        array = np.asarray(goals, dtype=np.float64)
        if array.shape != (len(GOALS), 2) or not (np.abs(array) <= self.ARENA_HALF_WIDTH).all():
            raise InputError(
                f"goals must be {len(GOALS)} positions with coordinates of at most {self.ARENA_HALF_WIDTH}, got {goals!r}; to "
                "leave out goals, name them in closed"
            )
        return array

    def _open_goals(self, closed: Any) -> np.ndarray:
        numbers = {as_integer("each number in closed", number, 0, "goals are counted from 0") for number in closed}
        if not numbers < set(range(len(GOALS))):
            raise InputError(f"closed must hold some, not all, of the goals 0 to {len(GOALS) - 1}, got {closed!r}")
        return np.array([number not in numbers for number in range(len(GOALS))])

    def _inside_arena(self, position: np.ndarray) -> np.ndarray:
        return np.clip(position, -self.ARENA_HALF_WIDTH, self.ARENA_HALF_WIDTH)

    def _observation(self) -> np.ndarray:
        return self.position.astype(np.float32)
