"""How many of forty far-apart good places does a policy visit? A plane whose reward is the log-density of a mixture."""

import math
from importlib import resources
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dqs.checks import check_choice, check_positive
from sb3_dqs.envs.arena import Arena, checked_options, checked_vector

REWARDS = ("log_density", "gain")


def load_means() -> np.ndarray:
    """
    :return: (40, 2), means of the mixture, in [-40, 40]^2
    """
    with resources.files("sb3_dqs.envs").joinpath("data/gmm40_means.csv").open() as file:
        return np.loadtxt(file, delimiter=",", skiprows=1)


class GaussianMixtureEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    Navigation on a mixture of 40 Gaussians of unit standard deviation and equal weight.

    Observation: position, in [-50, 50]^2. Action: direction of a move of length 1, in [-1, 1]^2. Reward: log-density of the
    mixture at the new position. Episodes start at the origin and are cut after 100 steps; another horizon is
    ``gym.make(..., max_episode_steps=...)``. Nothing terminates.
    Source: DQS, arXiv:2410.01312, as in the authors' code, which scores the last positions of the episodes by their distance
    to draws from the mixture; the mixture is the one of FAB, arXiv:2208.01893, with another standard deviation.

    :param reward: ``"log_density"`` as published, or ``"gain"``: the change of the log-density in a step, whose sum over an
        episode is the log-density of the last position less that of the first
    :param reward_scale: factor on all rewards
    :param unit_moves: every move has length 1, as published; otherwise the action itself is the move
    :param render_mode: ``"rgb_array"`` or None
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    STATE_HALF_WIDTH = 50.0
    # A mode counts as visited within this distance of its mean, standard deviations: it holds 1 - exp(-4.5) = 98.9 %
    MODE_RADIUS = 3.0

    def __init__(
        self,
        reward: str = "log_density",
        reward_scale: float = 1.0,
        unit_moves: bool = True,
        render_mode: str | None = None,
    ):
        check_choice("reward", reward, REWARDS)
        check_positive("reward_scale", reward_scale, "1.0 is the published value")
        self.reward = reward
        self.reward_scale = reward_scale
        self.unit_moves = unit_moves
        self.render_mode = render_mode
        self.means = load_means()
        self.arena = Arena(self.STATE_HALF_WIDTH, self.means, self.MODE_RADIUS)
        self.observation_space = spaces.Box(-self.STATE_HALF_WIDTH, self.STATE_HALF_WIDTH, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.position = np.zeros(2)
        self.trace: list[np.ndarray] = []

    def log_density(self, positions: np.ndarray) -> np.ndarray:
        """
        :param positions: (..., 2)
        :return: (...), log-density of the mixture
        """
        squared_distances = ((positions[..., None, :] - self.means) ** 2).sum(axis=-1)
        log_sum = np.logaddexp.reduce(-squared_distances / 2, axis=-1)
        return log_sum - math.log(len(self.means)) - math.log(2 * math.pi)

    def draw(self, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        """
        :param n_draws: number of draws
        :param rng: source of randomness
        :return: (n_draws, 2), exact draws from the mixture
        """
        return self.means[rng.integers(len(self.means), size=n_draws)] + rng.standard_normal((n_draws, 2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: without effect: the start is the origin
        :param options: ``{"start": (x, y)}`` starts from there
        :return: observation and info
        :raises ValueError: if an option is unknown or cannot be used
        """
        super().reset(seed=seed)
        options = checked_options(options, ("start",))
        self.position = self._inside(checked_vector("start", options.get("start", (0.0, 0.0)), 2))
        self.trace = [self.position]
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: (2,), in [-1, 1]
        :return: observation, reward, terminated, truncated, info with ``mode`` (index of the mode that the point is within 3
            standard deviations of, or -1)
        """
        before = self.position
        self.position = self._inside(before + self._move(action))
        self.trace.append(self.position)
        reward = self.log_density(self.position)
        if self.reward == "gain":
            reward = reward - self.log_density(before)
        distances = np.linalg.norm(self.means - self.position, axis=1)
        nearest = int(distances.argmin())
        info = {"mode": nearest if distances[nearest] < self.MODE_RADIUS else -1}
        return self._observation(), float(self.reward_scale * reward), False, False, info

    def render(self) -> np.ndarray | None:
        """
        :return: (280, 280, 3) image of modes (green), trace (grey) and position (red); None without render mode
        """
        return self.arena.picture(self.trace) if self.render_mode == "rgb_array" else None

    def _move(self, action: np.ndarray) -> np.ndarray:
        move = np.clip(checked_vector("action", action, 2), -1.0, 1.0)
        length = np.linalg.norm(move)
        # the zero action has no direction and stays
        return move / length if self.unit_moves and length > 0 else move

    def _inside(self, position: np.ndarray) -> np.ndarray:
        return np.clip(position, -self.STATE_HALF_WIDTH, self.STATE_HALF_WIDTH)

    def _observation(self) -> np.ndarray:
        return self.position.astype(np.float32)
