"""Which wrappers do tiers need that gymnasium does not have?"""

from typing import Any

import gymnasium as gym

from sb3_dqs.checks import as_integer


class ActionRepeat(gym.Wrapper):
    """
    Take each action for several steps of the environment, or until the episode ends, and sum their rewards.

    :param env: Environment
    :param n_repeats: steps of the environment per action
    :raises ValueError: if that is not a whole number of at least 1
    """

    def __init__(self, env: gym.Env, n_repeats: int):
        super().__init__(env)
        self.n_repeats = as_integer("action_repeat", n_repeats, 1, "1 takes each action once")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total_reward = 0.0
        for _ in range(self.n_repeats):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total_reward += float(reward)
            if terminated or truncated:
                break
        return observation, total_reward, terminated, truncated, info
