"""Is what an environment gives, or a buffer holds, refused where nothing could be learned from it?"""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqs import DQS
from sb3_dqs.answers import check_transition
from sb3_dqs.checks import InputError
from tests.conftest import OBSERVATIONS, SMALL, make_env


@pytest.mark.parametrize("scale", [True, False])
def test_demonstrations_must_be_scaled(scale, algorithm):
    model = algorithm("MlpPolicy", make_env(), learning_starts=0)
    action = np.array([[3.0, -1.0]], np.float32)
    for _ in range(30):
        stored = model.policy.scale_action(action) if scale else action
        model.replay_buffer.add(np.zeros((1, 2)), np.zeros((1, 2)), stored, np.zeros(1), np.zeros(1), [{}])
    if scale:
        model.learn(5)
    else:
        with pytest.raises(InputError, match=r"an action of size 3; actions are stored scaled.*model\.policy\.scale_action"):
            model.learn(5)
        assert model._n_updates == 0


class Broken(gym.Env):
    """Episodes of ten steps, of which one gives a number that is not finite: at the given step, or where it is named."""

    def __init__(self, where, at_step, bad, observation_space=OBSERVATIONS):
        self.where, self.at_step, self.bad = where, at_step, bad
        self.observation_space = observation_space
        self.action_space = spaces.Box(-1.0, 1.0, (1,))
        self.observation_space.seed(0)
        self.n_steps = 0

    def observation(self, is_bad):
        observation = self.observation_space.sample()
        if is_bad:
            (observation["vector"] if isinstance(observation, dict) else observation)[1] = self.bad
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation(self.where == "reset" and self.n_steps == self.at_step), {}

    def step(self, action):
        self.n_steps += 1
        is_now = self.n_steps == self.at_step
        reward = self.bad if self.where == "reward" and is_now else 0.0
        observation = self.observation(is_now and self.where in ("observation", "last observation"))
        return observation, reward, False, self.n_steps % 10 == 0, {}


DICT = spaces.Dict({"number": spaces.Discrete(3), "vector": OBSERVATIONS})

BAD_MOMENTS = [
    ("reward", 7),
    ("reward", 27),
    ("observation", 7),
    ("observation", 27),
    # as the episode is over by time, so that its value counts
    ("last observation", 10),
    ("last observation", 30),
    # the first of all, and first ones of later episodes
    ("reset", 0),
    ("reset", 10),
    ("reset", 30),
]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("space", [OBSERVATIONS, DICT], ids=["vector", "dict"])
@pytest.mark.parametrize(("where", "at_step"), BAD_MOMENTS)
def test_what_is_not_finite_is_named_and_not_stored_and_the_model_can_be_saved(tmp_path, where, at_step, space, bad):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    model = DQS(policy, Broken(where, at_step, bad, space), seed=0, **SMALL)
    named = "reward" if where == "reward" else "vector" if isinstance(space, spaces.Dict) else "observation"
    with pytest.raises(InputError, match=rf"{named} of environment 0 is not finite: .*{bad}.*VecCheckNan"):
        model.learn(60)
    assert model.num_timesteps <= max(at_step, 1), "before anything is learned from it"
    buffer = model.replay_buffer
    for stored in (buffer.observations, buffer.next_observations, {"reward": buffer.rewards}):
        for values in stored.values() if isinstance(stored, dict) else [stored]:
            assert np.isfinite(values).all()
    assert all(th.isfinite(value).all() for value in model.policy.state_dict().values())
    model.save(tmp_path / "model")
    loaded = DQS.load(tmp_path / "model", env=Broken("nowhere", 0, bad, space))
    loaded.learn(30, reset_num_timesteps=False)


class Counting(gym.Env):
    """Observes the steps of its episode, of ten; the reward of one step, the last of an episode, is no number."""

    observation_space = spaces.Box(0.0, 10.0, (1,))
    action_space = spaces.Box(-1.0, 1.0, (1,))
    n_steps, n_steps_of_all = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.n_steps += 1
        self.n_steps_of_all += 1
        reward = math.nan if self.n_steps_of_all == 20 else 0.0
        return np.full(1, self.n_steps, np.float32), reward, False, self.n_steps == 10, {}


def test_a_live_model_goes_on_from_a_reset_after_what_was_not_finite():
    model = DQS("MlpPolicy", Counting(), seed=0, **SMALL)
    with pytest.raises(InputError, match="reward of environment 0 is not finite"):
        model.learn(60)
    model.learn(15, reset_num_timesteps=False)
    buffer, size = model.replay_buffer, model.replay_buffer.size()
    before, after = buffer.observations[:size, 0, 0], buffer.next_observations[:size, 0, 0]
    # 19 steps, and 15 of a new episode
    assert before.tolist() == [*range(10), *range(9), *range(10), *range(5)]
    assert np.array_equal(after, before + 1)


class Dated(Counting):
    """Observes and rewards 100 times the number of its episode, and the step: 302 is the second step of the third."""

    observation_space = spaces.Box(0.0, 1e4, (1,))

    def __init__(self, bad_step):
        self.bad_step, self.n_episodes = bad_step, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_episodes += 1
        return np.float32([100 * self.n_episodes]), {}

    def step(self, action):
        _, _, *rest = super().step(action)
        now = 100 * self.n_episodes + self.n_steps
        return np.float32([now]), math.nan if self.n_steps_of_all == self.bad_step else now, *rest


@pytest.mark.parametrize("settings", [{"n_steps": 3}, {"optimize_memory_usage": True}])
@pytest.mark.parametrize("is_refused", [True, False])
@pytest.mark.filterwarnings("ignore:The last trajectory in the replay buffer will be truncated")
def test_an_episode_that_was_broken_off_does_not_go_on_in_the_next_one(settings, is_refused):
    """By an answer that is refused, the fourth of the second episode, or since a new run begins there."""
    if "optimize_memory_usage" in settings:
        settings = {**settings, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    env = Dated(14 if is_refused else None)
    model = DQS("MlpPolicy", env, seed=0, gamma=1.0, **{**SMALL, "learning_starts": 1_000}, **settings)
    if is_refused:
        with pytest.raises(InputError, match="reward of environment 0 is not finite"):
            model.learn(60)
    else:
        model.learn(13)
    model.learn(10, reset_num_timesteps=not is_refused)
    batch = model.replay_buffer.sample(500)
    before, after, dones = (values.flatten().numpy() for values in (batch.observations, batch.next_observations, batch.dones))
    goes_on = dones == 0
    assert (after // 100 == before // 100)[goes_on].all()
    if "n_steps" in settings:
        expected = [sum(range(int(a) + 1, int(b) + 1)) for a, b in zip(before, after, strict=True)]
        assert batch.rewards.flatten().tolist() == expected
        # up to three steps, fewer where the episode ends; the end itself is to be bootstrapped from
        assert (after[before == 201] == 203).all()
        assert goes_on[before == 202].all()


class Ending(Counting):
    def step(self, action):
        observation, *_ = super().step(action)
        return observation, 0.0, self.n_steps == 10, False, {}


def test_an_episode_that_has_ended_in_earnest_before_a_new_run_is_not_bootstrapped_from():
    model = DQS("MlpPolicy", Ending(), n_steps=3, seed=0, **{**SMALL, "learning_starts": 1_000}).learn(10)
    buffer = model.replay_buffer
    assert (buffer.dones[9, 0], buffer.timeouts[9, 0]) == (1, 0)
    model.learn(5)
    assert (buffer.dones[9, 0], buffer.timeouts[9, 0]) == (1, 0)


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_numbers_beyond_single_precision_are_refused_as_infinite_ones_are(where):
    """2^128 is the first power of two that float32, and so the networks, cannot hold."""
    wide = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    env = DummyVecEnv([lambda: Broken(where, 7, 2.0**128, wide)])
    env.buf_rews = env.buf_rews.astype(np.float64)  # as SubprocVecEnv returns them
    model = DQS("MlpPolicy", env, seed=0, **SMALL)
    with pytest.raises(InputError, match=rf"{where} of environment 0 is not finite: .*3\.40.*e\+38.*beyond single precision"):
        model.learn(60)
    assert model.replay_buffer.pos == 6


def test_a_part_of_the_observation_that_is_called_reward_is_checked_too():
    space = spaces.Dict({"reward": spaces.Box(-1.0, 1.0, (1,)), "vector": OBSERVATIONS})
    observations = {"reward": np.full((1, 1), np.nan), "vector": np.zeros((1, *space["vector"].shape))}
    with pytest.raises(InputError, match="reward of environment 0 is not finite"):
        check_transition(observations, np.zeros(1))


class ListsItsDones(DummyVecEnv):
    def step_wait(self):
        observations, rewards, dones, infos = super().step_wait()
        return observations, rewards, dones.tolist(), infos


def test_ends_of_episodes_may_be_a_list():
    model = DQS("MlpPolicy", ListsItsDones([make_env]), seed=0, **SMALL).learn(60)
    assert model.replay_buffer.dones.sum() > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("where", "at_step"), [("reward", 7), ("observation", 7), ("reset", 0), ("reset", 10)])
def test_what_vec_normalize_would_clip_is_named_and_not_stored(where, at_step, is_training, bad):
    env = VecNormalize(DummyVecEnv([lambda: Broken(where, at_step, bad)]), training=is_training)
    model = DQS("MlpPolicy", env, seed=0, **SMALL)
    named, counted = "reward" if where == "reward" else "observation", "statistics of VecNormalize have counted it"
    with pytest.raises(InputError, match=rf"{named} of environment 0 is not finite: .*{bad}.*VecCheckNan") as error:
        model.learn(60)
    assert (counted in str(error.value)) == is_training
    buffer = model.replay_buffer
    assert all(np.isfinite(values).all() for values in (buffer.observations, buffer.next_observations, buffer.rewards))


def test_a_huge_reward_raises_an_error_that_names_the_update_and_sends_back_to_a_saved_model(algorithm):
    model = algorithm("MlpPolicy", Broken("reward", 15, 1e30), seed=0)
    with pytest.raises(InputError, match=r"critic_loss is not finite at update \d+.*rewards.*learning_rate.*saved before"):
        model.learn(500)


def test_an_infinite_reward_in_the_buffer_leaves_networks_that_are_not_worth_saving_as_the_error_says(algorithm):
    model = algorithm("MlpPolicy", make_env(), seed=0).learn(30)
    model.replay_buffer.rewards[:] = np.inf
    with pytest.raises(InputError, match=r"The networks may no longer be finite: go on from a model that was saved before\."):
        model.train(1, 16)
    assert not all(th.isfinite(parameter).all() for parameter in model.critic.parameters())
