"""Are the measures of a benchmark what they should be for policies whose answer is known?"""

import itertools
from collections import defaultdict
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC

from benchmarks import measures
from benchmarks.measures import (
    N_CANDIDATES,
    bandit_measures,
    closed_goal_measures,
    critic_law_measures,
    goal_law_measures,
    goals_by_temperature,
    measures_from_the_centre,
    mixture_measures,
    recovery_measures,
    reloaded,
    returns_by_candidates,
)
from benchmarks.shapes import RandomEnv
from benchmarks.static_targets import model_of_law
from sb3_dqs import DQS, PaperDQS
from sb3_dqs.envs import MultiGoalEnv
from sb3_dqs.inspection.evaluation import Episode, roll_out
from sb3_dqs.policies import fixed_start_noise


class Policy:
    """Stands for a trained model: maps observations (n, d) to actions in [-1, 1]."""

    def __init__(self, act):
        self.act = act
        self.policy = SimpleNamespace(scale_action=lambda actions: actions)

    def predict(self, observations, deterministic=False):
        return self.act(observations), None

    def get_vec_normalize_env(self):
        return None


@pytest.mark.parametrize("landscape", ["two_peaks", "four_peaks"])
def test_exact_draws_of_a_bandit_are_at_no_distance(landscape):
    env = gym.make("sb3_dqs/Bandit-v0", landscape=landscape).unwrapped
    rng = np.random.default_rng(1)
    found = bandit_measures(Policy(lambda contexts: env.draw(len(contexts), float(contexts[0, 0]), rng)), env, seed=0)
    # two sets of draws lie as far from the law as chance has it
    assert found["total_variation"] == pytest.approx(found["total_variation_of_exact_draws"], rel=0.3)
    # the largest of 5 contexts times up to 4 peaks, each with a standard error of at most 0.5 / sqrt(20000) = 0.0035
    assert found["largest_peak_error"] < 4 * 0.0035
    assert found["mmd"] < 0.05
    assert found["sliced_w2"] < 0.02


def test_a_policy_that_gives_up_the_lower_peak_is_off_by_its_weight():
    env = gym.make("sb3_dqs/Bandit-v0").unwrapped
    width, rng = env.landscape.width, np.random.default_rng(1)
    policy = Policy(lambda contexts: np.clip(env.centres(contexts[0, 0])[0] + width * rng.standard_normal((20_000, 1)), -1, 1))
    found = bandit_measures(policy, env, seed=0)
    # peaks hold 95 % of the law, in shares 0.7 and 0.3, of which 95.4 % lies within two widths; the background adds
    # 0.05 * 0.3 to each: 0.954 - (0.95 * 0.7 * 0.954 + 0.015) = 0.305
    assert found["largest_peak_error"] == pytest.approx(0.305, abs=0.015)
    assert found["total_variation"] > 0.28


def test_a_policy_that_walks_to_one_mode_recovers_one(monkeypatch):
    monkeypatch.setattr(measures, "N_MIXTURE_EPISODES", 3)
    env = gym.make("sb3_dqs/GaussianMixture-v0")
    means = env.unwrapped.means
    # the pair of means that lie closest, 1.18 apart: both within reach of a point at either
    gaps = np.linalg.norm(means[:, None] - means, axis=-1) + 1e3 * np.eye(len(means))
    target = means[np.unravel_index(gaps.argmin(), gaps.shape)[0]]
    found = mixture_measures(Policy(lambda positions: np.clip(target - positions, -1, 1)), env, seed=0)
    assert found["modes_at_the_end"] == 1
    assert found["share_at_a_mode"] == 1.0
    assert found["mmd"] > 0.3


def test_episodes_that_end_at_exact_draws_recover_all_modes(monkeypatch):
    env = gym.make("sb3_dqs/GaussianMixture-v0")
    draws = env.unwrapped.draw(2_000, np.random.default_rng(5))
    episodes = [Episode(0.0, np.stack([np.zeros(2), position]), {}) for position in draws]
    monkeypatch.setattr(measures, "roll_out", lambda *arguments, **keywords: episodes)
    found = mixture_measures(None, env, seed=0)
    assert found["modes_at_the_end"] == found["modes_on_the_way"] == 40
    # within three standard deviations of a mean lie 1 - exp(-4.5) of its component
    assert found["share_at_a_mode"] == pytest.approx(1 - np.exp(-4.5), abs=4 * np.sqrt(0.0111 / 2_000))
    assert found["mmd"] < 0.05


def test_a_policy_that_picks_its_goal_by_the_noise_of_the_start_has_no_entropy_from_the_centre():
    env = gym.make("sb3_dqs/MultiGoal-v0")

    def away_from_the_middle(positions):
        along = np.abs(positions).argmax(axis=1)
        rows = np.arange(len(positions))
        actions = np.zeros((len(positions), 2))
        actions[rows, along] = np.where(positions[rows, along] >= 0, 1.0, -1.0)
        return actions

    found = measures_from_the_centre(Policy(away_from_the_middle), env, seed=0)
    assert found == {"success, exact centre": 1.0, "goal entropy, exact centre": 0.0}


def to_the_nearest_goal(positions):
    goals = MultiGoalEnv().goals
    nearest = goals[((positions[:, None] - goals) ** 2).sum(axis=-1).argmin(axis=1)]
    return np.clip(nearest - positions, -1, 1)


def to_a_goal_by_chance(seed=0):
    """Away from the middle: along x to the goal on the right with probability 0.7, else to one of the others."""
    rng = np.random.default_rng(seed)
    goals = MultiGoalEnv().goals

    def towards(positions):
        nearest = goals[((positions[:, None] - goals) ** 2).sum(axis=-1).argmin(axis=1)]
        chosen = goals[rng.choice(4, len(positions), p=[0.7, 0.1, 0.1, 0.1])]
        is_in_the_middle = (np.abs(positions).max(axis=1) < 0.5)[:, None]
        return np.clip(np.where(is_in_the_middle, chosen, nearest) - positions, -1, 1)

    return towards


def test_after_the_favourite_is_closed_only_chance_leads_to_another_goal():
    env = gym.make("sb3_dqs/MultiGoal-v0")
    found = closed_goal_measures(Policy(to_a_goal_by_chance()), env, 50, seed=0)
    once, thrice, ten_times = found.values()
    # 0.3 of the tries go elsewhere; of 50 starts, within four standard errors
    for share, k in ((once, 1), (thrice, 3), (ten_times, 10)):
        expected = 1 - 0.7**k
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 50) + 1e-9)
    always_right = Policy(lambda positions: np.clip(np.array([5.0, 0.0]) - positions, -1, 1))
    assert set(closed_goal_measures(always_right, env, 10, seed=0).values()) == {0.0}


def test_recovery_is_counted_from_the_move_to_the_first_evaluation_that_returns_enough():
    def records(*returns):
        return [{"steps": 10 * (i + 1), "stochastic": [value - 1, value + 1]} for i, value in enumerate(returns)]

    found = recovery_measures(records(-3, -2, -20, -6, -4, -7), at=20, recovered_at=-5)
    assert found == {
        "steps to recover": 30.0,
        "recovered": 1.0,
        "stochastic return at the move": -2.0,
        "stochastic return after the move, mean": -37 / 4,
    }
    # what stood before the move does not count
    never = recovery_measures(records(-3, -2, -20, -6), at=20, recovered_at=-5)
    assert (never["steps to recover"], never["recovered"]) == (20.0, 0.0)


def test_goals_of_a_policy_are_compared_with_those_of_exact_draws(monkeypatch):
    env, seeds = gym.make("sb3_dqs/MultiGoal-v0"), itertools.count()
    monkeypatch.setattr(measures, "can_compare_to_critic", lambda model: True)
    monkeypatch.setattr(measures, "ExactPolicy", lambda model: Policy(to_a_goal_by_chance(seed=next(seeds))))
    always_right = Policy(lambda positions: np.clip(np.array([5.0, 0.0]) - positions, -1, 1))
    found = goal_law_measures(always_right, env, 60, seed=0)
    shares = [found[f"goal {goal}, share by the law"] for goal in range(4)]
    assert sum(shares) == pytest.approx(1.0)
    assert found["goals, total variation to the law"] == pytest.approx(1 - shares[0])
    assert 0 < found["goals, total variation of exact draws from the same starts"] < 0.2
    # where the start decides, so do exact draws, though their goals are mixed
    monkeypatch.setattr(measures, "ExactPolicy", lambda model: Policy(to_the_nearest_goal))
    by_start = goal_law_measures(always_right, env, 60, seed=0)
    assert max(by_start[f"goal {goal}, share by the law"] for goal in range(4)) < 0.5
    assert by_start["goals, total variation of exact draws from the same starts"] == 0.0


class OneStep(gym.Env):
    """Nothing to observe, and one reward, a function of the action."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, reward):
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(self.reward(th.as_tensor(action))), True, False, {}


def hill(actions):
    """Highest at (0.8, 0.8), where no untrained policy aims at."""
    return -((actions - 0.8) ** 2).sum(dim=-1)


def test_returns_by_candidates_are_those_of_the_best_of_so_many():
    model = model_of_law(DQS, hill, seed=0)
    returns = returns_by_candidates(model, [OneStep(hill) for _ in range(3)], seed=0)
    with th.no_grad():
        sampled = model.actor.diffusion.sample_candidates(th.zeros(1, 1), fixed_start_noise(32, 2).unsqueeze(1))
        candidates = model.actor.refiner.middles(th.zeros(1, 1), sampled).squeeze(1)
    expected = [hill(candidates[:n]).max().item() for n in N_CANDIDATES]
    assert list(returns) == ["return, 1 candidate", "return, best of 8", "return, best of 32"]
    assert list(returns.values()) == pytest.approx(expected, abs=1e-5)
    assert expected == sorted(set(expected)), "the more candidates, the better"
    assert model.n_action_candidates == 8, "its own number is as it was"


def test_algorithms_without_candidates_have_no_returns_by_them():
    envs = [OneStep(hill)]
    assert returns_by_candidates(SAC("MlpPolicy", envs[0]), envs, seed=0) == {}
    assert returns_by_candidates(model_of_law(PaperDQS, hill, seed=0, n_diffusion_steps=2), envs, seed=0) == {}


def test_goals_are_measured_at_lower_temperatures(monkeypatch):
    env = gym.make("sb3_dqs/MultiGoal-v0")
    of_its_kind = {"temperature": {"initial": 0.1}}
    model = DQS("MlpPolicy", env, seed=0, target_entropy=0.0, component_kwargs=of_its_kind, policy_kwargs={"net_arch": [8]})
    before, asked = model.thermostat.value.item(), defaultdict(list)

    def at(name, found):
        def measure(cooled, *arguments, **keywords):
            asked[name].append(cooled.policy.temperature.item())
            return found(cooled, *arguments, **keywords)

        return measure

    def from_the_centre(*arguments):
        return {"goal entropy, exact centre": float(len(asked["centre"]))}

    monkeypatch.setattr(measures, "measures_from_the_centre", at("centre", from_the_centre))
    monkeypatch.setattr(measures, "closed_goal_measures", at("closed", lambda *arguments: {}))
    monkeypatch.setattr(measures, "roll_out", at("returns", roll_out))
    found = goals_by_temperature(model, env, 2, seed=0)
    assert set(asked) == {"centre", "closed", "returns"}
    for temperatures in asked.values():
        assert temperatures == pytest.approx([before / 2, before / 4, before / 8, before / 16])
    of_the_centre = {name: value for name, value in found.items() if "centre" in name}
    assert of_the_centre == {
        "goal entropy, exact centre, at 0.5 of the temperature": 1.0,
        "goal entropy, exact centre, at 0.25 of the temperature": 2.0,
        "goal entropy, exact centre, at 0.125 of the temperature": 3.0,
        "goal entropy, exact centre, at 0.0625 of the temperature": 4.0,
    }
    returns = [value for name, value in found.items() if "return" in name]
    assert len(returns) == 4
    assert max(returns) < 0
    assert (model.thermostat.value.item(), model.target_entropy) == (before, 0.0), "the model is as it was"
    assert goals_by_temperature(SAC("MlpPolicy", env), env, 2, seed=0) == {}
    assert goals_by_temperature(DQS("MlpPolicy", RandomEnv(3, 2)), RandomEnv(3, 2), 2, seed=0) == {}


def test_a_reloaded_model_predicts_the_same_but_for_what_is_changed():
    model = DQS("MlpPolicy", RandomEnv(3, 2), seed=0)
    observations = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    actions, _ = model.predict(observations, deterministic=True)
    same, _ = reloaded(model).predict(observations, deterministic=True)
    assert (same == actions).all()
    other = reloaded(model, n_action_candidates=1)
    assert other.n_action_candidates == 1
    expected = model.actor.fixed_candidates(th.as_tensor(observations))[0]
    assert other.predict(observations, deterministic=True)[0] == pytest.approx(expected.detach().numpy(), abs=1e-6)


def test_the_law_of_the_critic_is_measured_where_the_policy_went(monkeypatch):
    def distances(model, observations):
        asked.extend(observations[:, 0].tolist())
        return {"total_variation": 0.25}

    asked = []
    monkeypatch.setattr(measures, "distances_to_critic", distances)
    # 21 and 11 observations, numbered on; the last of each episode asks for no action
    numbers = [np.arange(21.0)[:, None], np.arange(20.0, 31.0)[:, None]]
    episodes = [Episode(observations=values, total_reward=0.0, info={}) for values in numbers]
    model = DQS("MlpPolicy", RandomEnv(1, 2), seed=0)
    assert critic_law_measures(model, episodes) == {"total_variation_to_critic": 0.25}
    # ten of the thirty from 0 to 29, as evenly as whole numbers lie
    assert asked == [0.0, 3.0, 6.0, 9.0, 12.0, 16.0, 19.0, 22.0, 25.0, 29.0]
