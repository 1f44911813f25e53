"""Settings of every test: one torch thread per worker, and small models."""

import itertools
import os
import random

# MuJoCo and matplotlib must not look for a screen
os.environ.setdefault("MPLBACKEND", "Agg")

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.utils import seeding

from sb3_dqs import DQS, PaperDQS

th.set_num_threads(1)

SMALL = {"policy_kwargs": {"net_arch": [16, 16]}, "learning_starts": 20, "batch_size": 16, "buffer_size": 1_000}
# every part of the published algorithm, at a size for tests
SMALL_PAPER = {**SMALL, "n_score_samples": 8, "n_diffusion_steps": 5, "actor_batch_size": 16}


ALGORITHMS = {"ours": (DQS, SMALL), "paper": (PaperDQS, SMALL_PAPER)}


@pytest.fixture(autouse=True)
def reproducible(monkeypatch):
    """Chance falls alike in every run of a test, for what it has not seeded too: what passed once passes again."""
    random.seed(0)
    np.random.seed(0)
    th.manual_seed(0)
    seeds, seeded = itertools.count(), seeding.np_random
    # environments and spaces that nobody seeds would ask the operating system
    monkeypatch.setattr(seeding, "np_random", lambda seed=None: seeded(next(seeds) if seed is None else seed))


@pytest.fixture(params=ALGORITHMS.values(), ids=ALGORITHMS)
def algorithm(request):
    """DQS and the published algorithm, small: called as the class, with settings that replace those of the small one."""
    chosen, small = request.param

    def make(policy, env, **settings):
        return chosen(policy, env, **{**small, **settings})

    make.chosen, make.load, make.small = chosen, chosen.load, small
    return make


class RandomEnv(gym.Env):
    """Observations drawn from any space, a reward that depends on the action; episodes of 10 steps."""

    def __init__(self, observation_space: spaces.Space, action_dim: int = 2, action_dtype: type = np.float32):
        self.observation_space = observation_space
        self.action_space = spaces.Box(-2.0, 3.0, (action_dim,), action_dtype)
        self.observation_space.seed(0)
        self.step_count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.step_count += 1
        return self.observation_space.sample(), -float(np.sum(np.square(action))), False, self.step_count >= 10, {}


OBSERVATIONS = spaces.Box(-1.0, 1.0, (2,))


def make_env():
    return RandomEnv(OBSERVATIONS)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A trained model of each algorithm."""
    folder = tmp_path_factory.mktemp("models")
    for key, (algorithm, small) in ALGORITHMS.items():
        model = algorithm("MlpPolicy", make_env(), seed=0, **small).learn(20)
        model.train(2, 8)
        model.save(folder / key)
    return folder
