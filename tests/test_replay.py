"""Are n-step returns, spaces, environments and the discount those of the replay buffer too?"""

import copy

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize, VecTransposeImage

from sb3_dqs import DQS
from sb3_dqs.checks import InputError
from sb3_dqs.gpu.buffers import DeviceReplayBuffer
from tests.conftest import OBSERVATIONS, SMALL, RandomEnv, make_env


class OwnBuffer(ReplayBuffer):
    pass


class OwnNStepBuffer(NStepReplayBuffer):
    pass


@pytest.mark.parametrize("buffer_class", [OwnBuffer, DeviceReplayBuffer])
def test_n_step_returns_are_refused_with_a_buffer_of_one_step_returns(buffer_class):
    message = f"n_steps=3 needs SB3's NStepReplayBuffer, and {buffer_class.__name__} has one-step returns"
    with pytest.raises(InputError, match=message):
        DQS("MlpPolicy", make_env(), n_steps=3, replay_buffer_class=buffer_class, **SMALL)


@pytest.mark.parametrize("buffer_class", [None, DictReplayBuffer, HerReplayBuffer])
def test_n_step_returns_are_refused_with_dict_observations_and_hindsight(buffer_class):
    env = BitFlippingEnv(n_bits=3, continuous=True)
    with pytest.raises(InputError, match="n_steps=3 needs observations that are no Dict"):
        DQS("MultiInputPolicy", env, n_steps=3, replay_buffer_class=buffer_class, **SMALL)


@pytest.mark.parametrize("buffer_class", [None, ReplayBuffer, NStepReplayBuffer, OwnNStepBuffer])
def test_n_step_returns_and_their_discount_reach_every_buffer_that_has_them(buffer_class, recwarn):
    model = DQS("MlpPolicy", make_env(), n_steps=5, gamma=0.9, replay_buffer_class=buffer_class, **SMALL)
    assert isinstance(model.replay_buffer, buffer_class or NStepReplayBuffer)
    assert isinstance(model.replay_buffer, NStepReplayBuffer)
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (5, 0.9)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("buffer_class", [NStepReplayBuffer, OwnNStepBuffer])
def test_n_step_returns_asked_of_the_buffer_itself_are_not_lost(buffer_class):
    kwargs = {"replay_buffer_class": buffer_class, "replay_buffer_kwargs": {"n_steps": 5, "gamma": 0.9}}
    try:
        model = DQS("MlpPolicy", make_env(), **kwargs, **SMALL)
    except InputError as error:
        assert "n_steps" in str(error)  # noqa: PT017
    else:
        assert model.replay_buffer.n_steps == 5


def test_another_buffer_at_load_does_not_get_the_arguments_of_the_one_that_sb3_had_chosen(tmp_path):
    no_timeouts = {"handle_timeout_termination": False}
    DQS("MlpPolicy", make_env(), n_steps=3, replay_buffer_kwargs=no_timeouts, **SMALL).save(tmp_path / "model")
    buffer = DQS.load(tmp_path / "model", n_steps=1, replay_buffer_class=OwnBuffer).replay_buffer
    assert type(buffer) is OwnBuffer
    assert not buffer.handle_timeout_termination


@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_model_with_action_noise_goes_on_in_another_number_of_environments(tmp_path, n_envs):
    noise = NormalActionNoise(np.zeros(2), np.ones(2))
    DQS("MlpPolicy", DummyVecEnv([make_env] * 3), action_noise=noise, **SMALL).learn(24).save(tmp_path / "model")
    model = DQS.load(tmp_path / "model", env=DummyVecEnv([make_env] * n_envs))
    assert model.learn(30).num_timesteps == 30


def test_replay_buffer_of_another_number_of_environments_is_refused_before_the_first_step(tmp_path, algorithm):
    algorithm("MlpPolicy", make_env()).learn(25).save_replay_buffer(tmp_path / "buffer")
    model = algorithm("MlpPolicy", DummyVecEnv([make_env] * 3))
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(InputError, match="transitions of 1 environments, and the model has 3; continue with 1"):
        model.learn(30)
    assert model.num_timesteps == 0


@pytest.mark.parametrize(("of_buffer", "of_model"), [(1, 3), (3, 1), (3, 5)])
def test_replay_buffer_of_other_returns_is_refused_before_the_first_step(tmp_path, of_buffer, of_model):
    DQS("MlpPolicy", make_env(), n_steps=of_buffer, **SMALL).learn(25).save_replay_buffer(tmp_path / "buffer")
    model = DQS("MlpPolicy", make_env(), n_steps=of_model, **SMALL)
    model.load_replay_buffer(tmp_path / "buffer")
    message = rf"returns of {of_buffer} steps, and n_steps of the model is {of_model}; .*load\(path, n_steps={of_buffer}\)"
    with pytest.raises(InputError, match=message):
        model.learn(30)


def of_type(space_type):
    return spaces.Box(0, 1, (3,), space_type)


@pytest.mark.parametrize(
    ("of_buffer", "of_model", "message"),
    [
        # a wrapper that scales images has been added: as whole numbers, its observations would all be 0
        (of_type(np.uint8), of_type(np.float32), "type uint8, and that of the model is .* type float; continue with the env"),
        (of_type(np.float32), OBSERVATIONS, r"Box of shape \(3,\) .* the model is Box of shape \(2,\)"),
        (spaces.Discrete(3), spaces.Discrete(4), r"Discrete\(3\), and that of the model is Discrete\(4\)"),
        (OBSERVATIONS, spaces.Dict({"a": OBSERVATIONS}), "another observation_space"),
    ],
    ids=str,
)
def test_replay_buffer_of_other_observations_is_refused_before_the_first_step(of_buffer, of_model, message, tmp_path):
    DQS("MlpPolicy", RandomEnv(of_buffer), **SMALL).learn(25).save_replay_buffer(tmp_path / "buffer")
    policy = "MultiInputPolicy" if isinstance(of_model, spaces.Dict) else "MlpPolicy"
    model = DQS(policy, RandomEnv(of_model), **SMALL)
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(InputError, match=message):
        model.learn(30)


def test_replay_buffer_of_other_actions_is_refused_and_one_of_other_bounds_is_not(tmp_path):
    DQS("MlpPolicy", RandomEnv(OBSERVATIONS), **SMALL).learn(25).save_replay_buffer(tmp_path / "buffer")
    model = DQS("MlpPolicy", RandomEnv(OBSERVATIONS, action_dim=1), **SMALL)
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(InputError, match=r"another action_space, Box of shape \(2,\).* the model is Box of shape \(1,\)"):
        model.learn(30)
    wider = DQS("MlpPolicy", RandomEnv(spaces.Box(-2.0, 2.0, (2,), np.float64)), **SMALL)
    wider.load_replay_buffer(tmp_path / "buffer")
    assert wider.learn(5).replay_buffer.size() == 30


class Bonus(BitFlippingEnv):
    """Rewards of 0 and 1 with a bonus."""

    def __init__(self, bonus):
        super().__init__(n_bits=3, continuous=True, max_steps=4)
        self.bonus = bonus

    def compute_reward(self, achieved_goal, desired_goal, info):
        return super().compute_reward(achieved_goal, desired_goal, info) + self.bonus


def test_rewards_of_other_goals_are_asked_of_the_environment_of_now():
    settings = {**SMALL, "replay_buffer_class": HerReplayBuffer}
    model = DQS("MultiInputPolicy", Bonus(0.0), seed=0, **settings).learn(8)
    model.set_env(Bonus(1_000.0))
    model.learn(16, reset_num_timesteps=False)
    # a third of 24 steps had no bonus when they were taken; nothing is asked of the first environment any more
    assert model.replay_buffer.env is model.env
    copied = copy.deepcopy(model).learn(8, reset_num_timesteps=False)
    assert copied.num_timesteps == 32


class OwnReturns(ReplayBuffer):
    """A user's buffer, whose attribute is not SB3's."""

    n_steps = 3


def test_a_buffer_of_ones_own_is_not_asked_for_its_returns():
    assert DQS("MlpPolicy", make_env(), replay_buffer_class=OwnReturns, **SMALL).learn(30)._n_updates == 10


def test_a_loaded_replay_buffer_discounts_as_the_model_does(tmp_path):
    saved = DQS("MlpPolicy", make_env(), n_steps=3, gamma=0.99, **SMALL).learn(25)
    saved.save(tmp_path / "model")
    saved.save_replay_buffer(tmp_path / "buffer")
    model = DQS.load(tmp_path / "model", env=make_env(), gamma=0.5)
    model.load_replay_buffer(tmp_path / "buffer")
    model.learn(5, reset_num_timesteps=False)
    assert model.replay_buffer.gamma == 0.5


def test_goals_are_taken_from_the_same_episode_after_it_was_broken_off():
    env = BitFlippingEnv(n_bits=30, continuous=True, max_steps=8)
    settings = {**SMALL, "learning_starts": 1_000, "replay_buffer_class": HerReplayBuffer}
    model = DQS("MultiInputPolicy", env, seed=0, **settings).learn(3)
    model.learn(8)
    # SB3's own notes: an episode of three steps, then one of eight
    assert model.replay_buffer.ep_start[:11, 0].tolist() == [0] * 3 + [3] * 8
    assert model.replay_buffer.ep_length[:3, 0].tolist() == [3] * 3


IMAGES = spaces.Box(0, 255, (36, 40, 3), np.uint8)


def normalised_below(space, wrapper, **kwargs):
    return wrapper(VecNormalize(DummyVecEnv([lambda: RandomEnv(space)]), **kwargs))


@pytest.mark.parametrize(
    ("space", "wrapper", "normalised"),
    [
        (IMAGES, VecTransposeImage, {"norm_obs": False}),
        (spaces.Dict(image=IMAGES, vector=OBSERVATIONS), VecTransposeImage, {"norm_obs_keys": ["vector"]}),
        (OBSERVATIONS, lambda venv: VecFrameStack(venv, 4), {}),
    ],
)
def test_wrappers_above_vec_normalize_that_change_what_is_stored_are_refused(space, wrapper, normalised):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    env = normalised_below(space, wrapper, **normalised)
    message = r"env has VecNormalize below a wrapper .* VecNormalize\(VecTransposeImage\(venv\), ...\)"
    with pytest.raises(InputError, match=message):
        DQS(policy, env, **SMALL)

    mended = VecNormalize(wrapper(DummyVecEnv([lambda: RandomEnv(space)])), **normalised)
    model = DQS(policy, mended, **SMALL)
    with pytest.raises(InputError, match=message):
        model.set_env(env)
    assert model.learn(20).env is mended


def test_a_wrapper_above_vec_normalize_that_leaves_observations_alone_is_taken():
    env = normalised_below(OBSERVATIONS, VecMonitor)
    assert DQS("MlpPolicy", env, **SMALL).learn(20).num_timesteps == 20
