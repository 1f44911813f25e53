"""End to end, from rewards to actions: does DQS sample exp(r / temperature) / Z of a contextual bandit with two peaks?"""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_dqs import DQS

TEMPERATURE = 0.4
PEAK_WIDTH = 0.25


def reward(context, actions):
    """Two unequal peaks, of height 1 and 0.8, whose place depends on the context; (..., action_dim) -> (...)."""
    shift = 0.2 * context
    high = np.exp(-((actions - (0.5 + shift)) ** 2).sum(axis=-1) / (2 * PEAK_WIDTH**2))
    low = np.exp(-((actions - (-0.5 + shift)) ** 2).sum(axis=-1) / (2 * PEAK_WIDTH**2))
    return high + 0.8 * low


class TwoPeakBandit(gym.Env):
    def __init__(self, action_dim):
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        # three draws for one: SB3 seeds the warm-up actions as the environment, and one each would make both equal
        self.context = self.np_random.uniform(-1.0, 1.0, 3)[2:].astype(np.float32)
        return self.context, {}

    def step(self, action):
        return self.context, float(reward(self.context[0], np.asarray(action, np.float64))), True, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("action_dim", [1, pytest.param(2, marks=pytest.mark.integration)])
def test_actions_follow_the_boltzmann_law_of_the_reward(action_dim):
    model = DQS(
        "MlpPolicy",
        TwoPeakBandit(action_dim),
        gamma=0.0,
        temperature=TEMPERATURE,
        learning_starts=4_000,
        # so many steps that what is left is the error of what was learned, not of the sampler
        n_diffusion_steps=8,
        n_score_samples=16,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
    )
    # uniform actions to learn from, then updates alone, the last quarter of them at a tenth of the rate
    model.learn(4_000)
    model.train(1_500, batch_size=128)
    model.learning_rate /= 10
    model.train(500, batch_size=128)

    grid = np.linspace(-1.0, 1.0, 51)
    centres = (grid[1:] + grid[:-1]) / 2
    actions_on_grid = np.stack(np.meshgrid(*[centres] * action_dim, indexing="ij"), axis=-1)
    for context in (-0.8, 0.0, 0.8):
        masses = np.exp(reward(context, actions_on_grid) / TEMPERATURE)
        masses /= masses.sum()
        th.manual_seed(0)
        actions, _ = model.predict(np.full((20_000, 1), context, np.float32))
        histogram = np.histogramdd(actions, [grid] * action_dim)[0] / len(actions)
        total_variation = 0.5 * np.abs(histogram - masses).sum()

        # a peak's mass: actions within 2 widths
        def peak_mass(weights, points, centre):
            return weights[np.linalg.norm(points - centre, axis=-1) < 2 * PEAK_WIDTH].sum()

        weights = []
        for centre in (0.5 + 0.2 * context, -0.5 + 0.2 * context):
            sampled = peak_mass(np.full(len(actions), 1 / len(actions)), actions, centre)
            weights.append((sampled, peak_mass(masses, actions_on_grid, centre)))
        print(
            f"\nd={action_dim} context={context}: total variation {total_variation:.3f}, peaks "
            + ", ".join(f"{sampled:.3f} (exact {exact:.3f})" for sampled, exact in weights)
        )
        if action_dim == 1:
            assert total_variation < 0.10
        for sampled, exact in weights:
            assert sampled > 0.05
            assert abs(sampled - exact) < 0.05
