"""Environment wrappers that the tests name in settings."""

import gymnasium as gym


class FirstOneDiverges(gym.Wrapper):
    """Rewards of the first environment made are infinite from step 60 on, as those of a broken simulator."""

    n_made = 0

    def __init__(self, env):
        super().__init__(env)
        self.diverges = FirstOneDiverges.n_made == FirstOneDiverges.first
        FirstOneDiverges.n_made += 1
        self.n_steps = 0

    # the zoo makes one environment for the action space before the first trial
    first = 1

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.n_steps += 1
        return observation, float("inf") if self.diverges and self.n_steps > 60 else reward, terminated, truncated, info
