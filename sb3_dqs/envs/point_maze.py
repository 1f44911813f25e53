"""Does a policy keep two ways through a maze open when either goal will do? A sparse reward at the end of both."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dqs.envs.arena import Arena, checked_vector
from sb3_dqs.extras import install_command

try:
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv as RoboticsPointMazeEnv
except ImportError as error:
    raise gym.error.DependencyNotInstalled(
        f"sb3_dqs/PointMaze-v0 needs gymnasium-robotics; install it with: {install_command('gymnasium_robotics')}"
    ) from error

# 1 wall, r start, g goal
MAP: list[list[str | int]] = [
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
    [1, "g", 0, 0, 0, 0, 1, 0, 1],
    [1, 0, 1, 1, 0, 0, 1, 0, 1],
    [1, 0, 0, 0, 0, 0, 1, 0, 1],
    [1, 0, 0, 0, "r", 0, 0, 0, 1],
    [1, 0, 1, 0, 0, 0, 0, 0, 1],
    [1, 0, 1, 1, 0, 0, 1, 0, 1],
    [1, 0, 0, 0, 0, 1, 1, "g", 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1],
]


class PointMazeEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    A ball pushed through a maze with two goals, of which either one ends the episode with reward 1; 0 otherwise.

    Observation: position, metres, and velocity, metres per second, (4,). Action: force along x and y, in [-1, 1]^2. 600 steps
    at most. The physics is that of ``PointMaze_Medium_Diverse_G-v3`` of gymnasium-robotics.
    Source: the map of DQS, arXiv:2410.01312, as in the authors' code; our deviation: both goals count in every episode and
    the observation does not name one, so that the policy has to keep both ways open by itself. The goal-conditioned task is
    ``gym.make("PointMaze_Medium_Diverse_G-v3", maze_map=sb3_dqs.envs.point_maze.MAP)``.

    :param render_mode: ``"rgb_array"`` or None
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    # As in gymnasium-robotics, metres
    GOAL_RADIUS = 0.45

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.simulation = RoboticsPointMazeEnv(maze_map=MAP, continuing_task=False)
        maze = self.simulation.maze
        walls = [maze.cell_rowcol_to_xy((i, j)) for i, row in enumerate(MAP) for j, cell in enumerate(row) if cell == 1]
        self.arena = Arena(len(MAP) / 2, np.array(maze.unique_goal_locations), self.GOAL_RADIUS, np.array(walls))
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.trace: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: of the start position, up to 0.25 m beside the middle of its cell
        :param options: ``{"reset_cell": (row, column)}`` starts in that cell
        :return: observation and info
        """
        super().reset(seed=seed)
        observation, _ = self.simulation.reset(seed=seed, options=options)
        self.trace = [observation["achieved_goal"].copy()]
        return observation["observation"].copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: (2,), force, in [-1, 1]
        :return: observation, reward, terminated, truncated, info with ``goal`` (index of the goal reached, or -1) and
            ``is_success``
        """
        observation, *_ = self.simulation.step(np.clip(checked_vector("action", action, 2), -1.0, 1.0))
        position = observation["achieved_goal"].copy()
        self.trace.append(position)
        distances = np.linalg.norm(self.arena.goals - position, axis=1)
        nearest = int(distances.argmin())
        reached = bool(distances[nearest] <= self.GOAL_RADIUS)
        info = {"goal": nearest if reached else -1, "is_success": reached}
        return observation["observation"].copy(), float(reached), reached, False, info

    def render(self) -> np.ndarray | None:
        """
        :return: (280, 280, 3) view from above: walls and trace grey, goals green, ball red; None without render mode
        """
        return self.arena.picture(self.trace) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.simulation.close()
