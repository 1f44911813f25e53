"""Does bad input raise a clear error at construction, and is nothing lost when training diverges?"""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import IdentityEnv

from sb3_dqs import DQS
from tests.conftest import SMALL, RandomEnv


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"diffusion": "boxx"}, r"diffusion must be one of .*'boxx'; did you mean 'box'\?"),
        ({"score_estimator": "steen"}, r"score_estimator must be one of .*did you mean 'stein'\?"),
        ({"temperature": 0.0}, "temperature must be a finite number > 0, got 0.0; .*0.01"),
        ({"temperature": -0.1}, "temperature must be a finite number > 0, got -0.1"),
        ({"temperature": math.nan}, "temperature must be a finite number > 0, got nan"),
        ({"temperature": "atuo"}, r"temperature must be one of .*did you mean 'auto'\?"),
        ({"temperature": lambda progress: progress}, "temperature must be a finite number > 0, got 0.0"),
        ({"temperature": None}, "temperature must be"),
        ({"target_entropy": 1.0}, "target_entropy must be .* < 0.69 nats.* got 1.0"),
        ({"target_entropy": "low"}, "target_entropy must be"),
        ({"initial_temperature": 0}, "initial_temperature must be a finite number > 0, got 0"),
        ({"actor_learning_rate_factor": 0}, "actor_learning_rate_factor must be a finite number > 0, got 0"),
        ({"cooling_updates": -1}, "cooling_updates must be an integer >= 0, got -1"),
        ({"temperature": 0.1, "target_entropy": -1.0}, "target_entropy=-1.0 has no effect"),
        ({"temperature": 0.1, "initial_temperature": 1.0}, "initial_temperature=1.0 has no effect"),
        ({"temperature": 0.1, "exploration_noise": "white", "cooling_updates": 9}, "cooling_updates=9 has no effect"),
        ({"diffusion": "paper", "cooling_updates": 9}, "cooling_updates=9 has no effect"),
        ({"n_score_samples": 15}, "n_score_samples must be even, got 15.* use 16"),
        ({"n_score_samples": 0}, "n_score_samples must be an integer >= 2, got 0"),
        ({"n_score_samples": 16.0}, "n_score_samples must be an integer >= 2, got 16.0"),
        ({"n_diffusion_steps": 1}, "n_diffusion_steps must be an integer >= 2, got 1; one step gives the mean"),
        ({"diffusion": "paper", "n_diffusion_steps": 0}, "n_diffusion_steps must be an integer >= 1, got 0"),
        ({"actor_batch_size": 0}, "actor_batch_size must be an integer >= 1"),
        ({"actor_batch_size": 17}, "actor_batch_size must be at most batch_size=16, got 17"),
        ({"policy_delay": 0}, "policy_delay must be an integer >= 1, got 0"),
        ({"n_action_candidates": True}, "n_action_candidates must be an integer >= 1, got True"),
        ({"diffusion_kwargs": {"sigma_min": 5.0}}, "sigma_min must be < sigma_max, got 5.0"),
        ({"diffusion_kwargs": {"sigma_max": -1.0}}, "sigma_max must be a finite number > 0"),
        ({"diffusion_kwargs": {"sigma_dat": 1.0}}, r"did you mean 'sigma_data'\?"),
        ({"diffusion_kwargs": {"sigma_data": 0.0}}, "sigma_data must be a finite number > 0"),
        ({"diffusion_kwargs": {"squash": "tanh"}}, "squash is a setting of diffusion='paper' and has no effect"),
        ({"diffusion_kwargs": {"n_score_samples": 8}}, "pass n_score_samples=... to DQS itself"),
        ({"diffusion": "paper", "score_estimator": "value"}, "score_estimator is a setting of diffusion='box'"),
        ({"diffusion": "paper", "target_entropy": -1.0}, "target_entropy=-1.0 has no effect"),
        ({"diffusion": "paper", "diffusion_kwargs": {"squash": "relu"}}, "squash must be one of"),
        ({"diffusion": "paper", "diffusion_kwargs": {"loss_weight_offset": -1.0}}, "loss_weight_offset must be"),
        ({"diffusion": "paper", "n_score_samples": 1}, "n_score_samples must be an integer >= 2"),
        ({"exploration_noise": "corelated"}, r"exploration_noise must be one of .*did you mean 'correlated'\?"),
        (
            {"diffusion": "paper", "exploration_noise": "correlated"},
            "exploration_noise='correlated' needs a sampler without noise",
        ),
        ({"policy_kwargs": {"diffusion": "box"}}, "policy_kwargs must not hold .*'diffusion'"),
    ],
)
def test_bad_setting_raises_value_error_with_name_value_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        DQS("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="bounded Box action space"):
        DQS("MlpPolicy", IdentityEnv(4))


def test_unbounded_actions_are_refused():
    class Unbounded(RandomEnv):
        def __init__(self):
            super().__init__(spaces.Box(-1.0, 1.0, (2,)))
            self.action_space = spaces.Box(-np.inf, np.inf, (2,))

    with pytest.raises(ValueError, match="bounded Box action space"):
        DQS("MlpPolicy", Unbounded())


def test_assertion_of_the_environment_is_not_taken_for_one_about_the_action_space():
    gym.register("sb3_dqs_tests/NoData-v0", lambda: exec("assert False, 'no data file'"))
    try:
        with pytest.raises(AssertionError, match="no data file"):
            DQS("MlpPolicy", "sb3_dqs_tests/NoData-v0")
    finally:
        del gym.registry["sb3_dqs_tests/NoData-v0"]


class NanRewardAfter(gym.Wrapper):
    def __init__(self, env, n_steps):
        super().__init__(env)
        self.n_steps = n_steps

    def step(self, action):
        self.n_steps -= 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, math.nan if self.n_steps < 0 else reward, terminated, truncated, info


def test_non_finite_loss_names_itself_the_update_and_a_remedy_and_the_model_can_be_saved(tmp_path, settings):
    model = DQS("MlpPolicy", NanRewardAfter(gym.make("Pendulum-v1"), 30), seed=0, **settings)
    with pytest.raises(ValueError, match=r"critic_loss is not finite at update \d+.*rewards.*learning_rate.*saved"):
        model.learn(500)
    assert model.num_timesteps < 200, "the first update that meets the NaN must raise"
    model.save(tmp_path / "model")
    DQS.load(tmp_path / "model")


def test_non_finite_update_is_named_within_a_round_of_updates():
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(40)
    one, infinite = th.ones(()), th.tensor(math.inf)
    with pytest.raises(ValueError, match="actor_loss is not finite at update 12"):
        model._check_and_log({"critic_loss": dict.fromkeys(range(9, 15), one), "actor_loss": {10: one, 12: infinite, 14: one}})
