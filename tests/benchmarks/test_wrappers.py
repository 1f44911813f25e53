"""Do repeated actions sum what the environment gives?"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from benchmarks.plan import load_tier
from benchmarks.report import _published_returns
from benchmarks.wrappers import ActionRepeat


class Countdown(gym.Env):
    """Rewards 1, 2, 4, ...; ends after ``length`` steps."""

    observation_space = spaces.Box(0, 100, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, length, truncates=False):
        self.length, self.truncates = length, truncates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        is_over = self.steps == self.length
        return (
            np.full(1, self.steps, np.float32),
            2.0 ** (self.steps - 1),
            is_over and not self.truncates,
            is_over and self.truncates,
            {},
        )


@pytest.mark.parametrize("truncates", [False, True])
def test_rewards_are_summed_until_the_episode_ends(truncates):
    env = ActionRepeat(Countdown(5, truncates), 2)
    env.reset()
    steps = [env.step(np.zeros(1)) for _ in range(3)]
    # 1 + 2, 4 + 8, and the fifth step alone, whose reward is 16
    assert [reward for _, reward, *_ in steps] == [3.0, 12.0, 16.0]
    assert [observation.item() for observation, *_ in steps] == [2, 4, 5]
    assert [terminated or truncated for _, _, terminated, truncated, _ in steps] == [False, False, True]
    assert steps[-1][3] == truncates


@pytest.mark.parametrize("n_repeats", [0, 1.5, "2"])
def test_repeats_are_whole_numbers_of_at_least_one(n_repeats):
    with pytest.raises(ValueError, match="action_repeat"):
        ActionRepeat(Countdown(5), n_repeats)


def test_published_curves_of_repeated_actions_are_over_steps_of_the_agent():
    tier = load_tier("dmc")
    assert {tier.action_repeat(name) for name in tier.scales} == {2}
    # 519.8 after 100,000 steps of the environment
    assert _published_returns(tier, "walker-run", "BRO utd2")[50_000] == 519.8
