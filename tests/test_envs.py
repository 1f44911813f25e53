"""Does the arena follow its rules?"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium_env
from stable_baselines3.common.env_checker import check_env as check_sb3_env

import sb3_dqs.envs
from sb3_dqs.envs import MultiGoalEnv


def test_arena_is_registered_and_passes_both_checkers():
    env = gym.make("sb3_dqs/MultiGoal-v0", render_mode="rgb_array")
    assert isinstance(env.unwrapped, sb3_dqs.envs.MultiGoalEnv)
    assert env.spec.max_episode_steps == 30
    check_gymnasium_env(env.unwrapped, skip_render_check=False)
    check_sb3_env(env, warn=True)


def test_start_is_near_the_centre_or_where_asked():
    env = MultiGoalEnv()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(500)])
    assert np.abs(starts.mean(axis=0)).max() < 4 * 0.1 / np.sqrt(500)
    assert np.abs(starts.std(axis=0) - 0.1).max() < 4 * 0.1 / np.sqrt(1_000)
    observation, _ = env.reset(options={"start": (3.0, -9.0)})
    assert observation.tolist() == [3.0, -7.0]


def test_reward_is_distance_action_and_goal():
    env = MultiGoalEnv(action_cost=2.0, goal_reward=10.0, reward_scale=0.1)
    env.reset(options={"start": (3.0, 0.0)})
    # to (3.5, 0.5): squared distance 1.5^2 + 0.5^2 = 2.5 to (5, 0), action cost 2 * (0.25 + 0.25)
    _, reward, terminated, truncated, info = env.step(np.array([0.5, 0.5]))
    assert reward == pytest.approx(0.1 * (-2.5 - 1.0))
    assert (terminated, truncated, info) == (False, False, {"goal": -1, "is_success": False})
    # to (4.5, 0.5): squared distance 0.5 < 1, action clipped to length 1 along x
    _, reward, terminated, _, info = env.step(np.array([4.0, 0.0]))
    assert reward == pytest.approx(0.1 * (-0.5 - 2.0 + 10.0))
    assert terminated
    assert info == {"goal": 0, "is_success": True}


def test_walls_stop_the_point():
    env = MultiGoalEnv()
    env.reset(options={"start": (6.8, 6.8)})
    observation, *_ = env.step(np.array([1.0, 1.0]))
    assert observation.tolist() == [7.0, 7.0]


def test_render_shows_goals_trace_and_position():
    env = MultiGoalEnv(render_mode="rgb_array")
    env.reset(options={"start": (0.0, 0.0)})
    env.step(np.array([1.0, 0.0]))
    image = env.render()
    assert image.shape == (280, 280, 3)

    def colour_at(x, y):
        return image[round((7 - y) * 20), round((x + 7) * 20)].tolist()

    assert colour_at(1.0, 0.0) == [220, 60, 60]
    assert colour_at(0.0, 0.0) == [150, 150, 150]
    assert colour_at(0.0, 5.0) == [120, 200, 120]
    assert MultiGoalEnv().render() is None
