"""The buffer on the device holds and returns what SB3's does."""

import copy
import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqs import DQS
from sb3_dqs.gpu import DeviceReplayBuffer
from sb3_dqs.gpu.buffers import STORED
from tests.conftest import SMALL, RandomEnv

OBSERVATIONS = {
    "float64": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "image": spaces.Box(0, 255, (3, 8, 8), np.uint8),
    "discrete": spaces.Discrete(5),
}


def filled(buffer_class, observation_space, n_steps=30, size=16, n_envs=2):
    """More steps than the buffer holds, each one with its number as reward; every third ends, every sixth by the clock."""
    action_space = spaces.Box(-1.0, 1.0, (2,))
    buffer = buffer_class(size * n_envs, observation_space, action_space, "cpu", n_envs)
    observation_space.seed(0)
    rng = np.random.default_rng(0)
    for step in range(n_steps):
        observations, next_observations = (np.stack([observation_space.sample() for _ in range(n_envs)]) for _ in range(2))
        actions = rng.uniform(-1, 1, (n_envs, 2)).astype(np.float32)
        rewards = np.array([step, step + 0.5])
        infos = [{"TimeLimit.truncated": step % 6 == 0}] * n_envs
        buffer.add(observations, next_observations, actions, rewards, np.array([step % 3 == 0] * n_envs), infos)
    return buffer


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_it_holds_what_sb3s_buffer_holds(name):
    ours, theirs = (filled(buffer_class, OBSERVATIONS[name]) for buffer_class in (DeviceReplayBuffer, ReplayBuffer))
    assert (ours.pos, ours.full, ours.size()) == (theirs.pos, theirs.full, theirs.size()) == (14, True, 16)
    for stored in STORED:
        np.testing.assert_allclose(getattr(ours, stored).numpy(), getattr(theirs, stored), rtol=1e-6, err_msg=stored)
    assert ours.observations.dtype == {"float64": th.float32, "image": th.uint8, "discrete": th.int64}[name]


def test_a_batch_is_rows_of_the_buffer_and_only_true_ends_are_done():
    buffer = filled(DeviceReplayBuffer, OBSERVATIONS["float64"])
    batch = buffer.sample(500)
    assert batch.rewards.shape == batch.dones.shape == (500, 1)
    held = {reward: index for index, reward in np.ndenumerate(buffer.rewards.numpy())}
    assert len(held) == 32
    drawn = set()
    for row, reward in enumerate(batch.rewards.squeeze(1).tolist()):
        index = held[reward]
        drawn.add(index)
        for stored, values in zip(STORED[:3], (batch.observations, batch.next_observations, batch.actions), strict=True):
            assert th.equal(values[row], getattr(buffer, stored)[index])
        step = int(reward)
        assert batch.dones[row].item() == (step % 3 == 0 and step % 6 != 0)
    assert drawn == set(held.values()), "500 draws of 32 rows leave none out"


def test_it_normalises_as_vec_normalize_does():
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0), clip_obs=1.5, clip_reward=0.5)
    env.reset()
    for _ in range(50):
        env.step(np.random.default_rng(0).uniform(-2, 2, (2, 1)))
    buffer = filled(DeviceReplayBuffer, env.observation_space)
    th.manual_seed(0)
    raw = buffer.sample(64)
    th.manual_seed(0)
    normalised = buffer.sample(64, env)
    for field in ("observations", "next_observations"):
        expected = env.normalize_obs(getattr(raw, field).numpy())
        np.testing.assert_allclose(getattr(normalised, field).numpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(normalised.rewards.numpy(), env.normalize_reward(raw.rewards.numpy()), rtol=1e-4)
    env.norm_obs = env.norm_reward = False
    th.manual_seed(0)
    assert th.equal(buffer.sample(64, env).observations, raw.observations)


@pytest.mark.parametrize("algorithm", [DQS, SAC])
def test_algorithms_learn_save_and_go_on_with_it(algorithm, tmp_path):
    def made():
        env = make_vec_env("Pendulum-v1", 2, seed=0)
        settings = copy.deepcopy(SMALL)  # SAC writes into its policy_kwargs
        return algorithm("MlpPolicy", env, replay_buffer_class=DeviceReplayBuffer, seed=0, device="cpu", **settings)

    model, same = made().learn(60), made().learn(60)
    for name, value in model.policy.state_dict().items():
        assert th.equal(same.policy.state_dict()[name], value), "same seed, same run"
    model.save_replay_buffer(tmp_path / "buffer")
    other = made()
    other.load_replay_buffer(tmp_path / "buffer")
    assert th.equal(other.replay_buffer.observations, model.replay_buffer.observations)
    other.learn(30)


def test_a_pickle_has_nothing_of_the_device_in_it():
    buffer = filled(DeviceReplayBuffer, OBSERVATIONS["float64"])
    buffer._device = th.device("cuda:1")
    assert all(isinstance(buffer.__getstate__()[name], np.ndarray) for name in STORED)
    loaded = pickle.loads(pickle.dumps(buffer))
    assert loaded.device == th.device("cpu"), "until the algorithm that loads it sets its own"
    assert th.equal(loaded.observations, buffer.observations)


def test_timeouts_are_ends_where_they_are_not_handled():
    space = OBSERVATIONS["float64"]
    buffer = DeviceReplayBuffer(4, space, spaces.Box(-1.0, 1.0, (2,)), "cpu", handle_timeout_termination=False)
    rows = (space.sample()[None], space.sample()[None], np.zeros((1, 2)), np.ones(1), np.ones(1))
    buffer.add(*rows, [{"TimeLimit.truncated": True}])
    assert buffer.sample(3).dones.tolist() == [[1.0]] * 3
    with pytest.raises(RuntimeError, match="must match the existing size"):
        buffer.add(np.zeros((1, 4)), *rows[1:], [{}])


def test_setting_the_device_moves_what_is_stored():
    buffer = filled(DeviceReplayBuffer, OBSERVATIONS["float64"])
    buffer.device = th.device("meta")
    assert {getattr(buffer, name).device.type for name in STORED} == {"meta"}


def test_it_takes_memory_of_the_device_at_the_first_transition():
    space = OBSERVATIONS["float64"]
    buffer = DeviceReplayBuffer(4, space, spaces.Box(-1.0, 1.0, (2,)), "meta")
    assert {getattr(buffer, name).device.type for name in STORED} == {"cpu"}, "lazy zeros of numpy"
    buffer.add(space.sample()[None], space.sample()[None], np.zeros((1, 2)), np.ones(1), np.ones(1), [{}])
    assert {getattr(buffer, name).device.type for name in STORED} == {"meta"}


def test_a_copy_lies_where_the_original_lies():
    buffer = filled(DeviceReplayBuffer, OBSERVATIONS["float64"])
    copied = copy.deepcopy(buffer)
    copied.observations.zero_()
    assert buffer.observations.any(), "not shared"
    assert th.equal(copied.rewards, buffer.rewards)
    buffer.device = th.device("meta")
    copied = copy.deepcopy(buffer)
    assert copied.device.type == copied.rewards.device.type == "meta"


def test_what_it_does_not_hold_is_refused():
    env = DummyVecEnv([lambda: RandomEnv(spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,))}))])
    with pytest.raises(ValueError, match="does not hold Dict observations; use SB3's DictReplayBuffer"):
        DQS("MultiInputPolicy", env, replay_buffer_class=DeviceReplayBuffer, **SMALL)
    kwargs = {"handle_timeout_termination": False}
    with pytest.raises(ValueError, match="does not support optimize_memory_usage=True"):
        DQS(
            "MlpPolicy",
            "Pendulum-v1",
            replay_buffer_class=DeviceReplayBuffer,
            replay_buffer_kwargs=kwargs,
            optimize_memory_usage=True,
            **SMALL,
        )


class Derived(DeviceReplayBuffer):
    """A user's own."""


@pytest.mark.parametrize("buffer_class", [DeviceReplayBuffer, Derived])
def test_returns_of_several_steps_are_refused_and_not_silently_of_one(buffer_class):
    with pytest.raises(ValueError, match=f"n_steps=3 needs SB3's NStepReplayBuffer, and {buffer_class.__name__} has one-step"):
        DQS("MlpPolicy", "Pendulum-v1", replay_buffer_class=buffer_class, n_steps=3, **SMALL)
    assert DQS("MlpPolicy", "Pendulum-v1", replay_buffer_class=buffer_class, device="cpu", **SMALL).learn(24)
