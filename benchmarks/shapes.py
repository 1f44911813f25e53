"""What stands for an environment where none matters, as for the cost of an update? One that is nothing but its shapes."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class RandomEnv(gym.Env):
    """Random observations and zero rewards in given shapes."""

    def __init__(self, n_observations: int, n_actions: int):
        self.observation_space = spaces.Box(-np.inf, np.inf, (n_observations,))
        self.action_space = spaces.Box(-1.0, 1.0, (n_actions,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self._observation(), 0.0, False, False, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.standard_normal(self.observation_space.shape, dtype=np.float32)  # type: ignore[arg-type]
