"""Does training run on each environment of this package, and can the agent be saved, loaded and shown?"""

import gymnasium as gym
import numpy as np
import pytest

from sb3_dqs import DQS
from tests.conftest import SMALL

OURS = sorted(env_id for env_id in gym.registry if env_id.startswith("sb3_dqs/"))


@pytest.mark.parametrize("env_id", OURS)
def test_agent_of_every_environment_is_the_same_after_loading(env_id, tmp_path):
    if env_id == "sb3_dqs/PointMaze-v0":
        pytest.importorskip("gymnasium_robotics")
    model = DQS("MlpPolicy", env_id, device="cpu", seed=0, **SMALL)
    model.learn(60)
    assert model._n_updates == 40
    model.save(tmp_path / "model")
    loaded = DQS.load(tmp_path / "model", device="cpu")

    env = gym.make(env_id, render_mode="rgb_array")
    observation, _ = env.reset(seed=1)
    for _ in range(3):
        action, _ = loaded.predict(observation, deterministic=True)
        assert np.array_equal(action, model.predict(observation, deterministic=True)[0])
        assert env.action_space.contains(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert np.isfinite(reward)
        if terminated or truncated:
            observation, _ = env.reset()
    assert env.render().dtype == np.uint8
    env.close()
