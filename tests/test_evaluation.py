"""Are measures of a policy right where the answer is known, and logged without touching the course of training?"""

import csv
import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_dqs import DQS
from sb3_dqs.callbacks import MultimodalityCallback
from sb3_dqs.envs import GaussianMixtureEnv
from sb3_dqs.evaluation import Episode, distances_to_critic, goals_of, sample_actions
from sb3_dqs.plotting import denoising_paths
from tests.conftest import RandomEnv


def small():
    # a fresh one each time: SAC writes into policy_kwargs
    return {
        "buffer_size": 500,
        "learning_starts": 20,
        "batch_size": 32,
        "policy_kwargs": {"net_arch": [16]},
        "seed": 0,
        "device": "cpu",
    }


def with_linear_critic(model, slope):
    """Q(s, a) = slope * a for every s: the critics' hidden layer passes a on by relu(a) - relu(-a)."""
    with th.no_grad():
        for network in model.critic.q_networks:
            for parameter in network.parameters():
                parameter.zero_()
            network[0].weight[0, -1], network[0].weight[1, -1] = 1.0, -1.0
            network[2].weight[0, 0], network[2].weight[0, 1] = slope, -slope
    return model


def test_untrained_policy_is_as_far_from_a_linear_law_as_the_uniform_one():
    # An untrained denoiser with zero output samples nearly uniform actions. With slope / temperature = 3 the law is
    # 3 exp(3 a) / (2 sinh 3), above the uniform density 1 / 2 from a* = ln(sinh(3) / 3) / 3 on, so their total variation is
    # (1 - a*) / 2 subtracted from the law's mass above a*
    model = with_linear_critic(DQS("MlpPolicy", "Pendulum-v1", temperature=2.0, **small()), slope=6.0)
    with th.no_grad():
        model.actor.diffusion.denoiser.network[-1].weight.zero_()
        model.actor.diffusion.denoiser.network[-1].bias.zero_()
    crossing = math.log(math.sinh(3) / 3) / 3
    mass_above = (math.exp(3) - math.exp(3 * crossing)) / (2 * math.sinh(3))
    expected = mass_above - (1 - crossing) / 2
    th.manual_seed(0)
    distances = distances_to_critic(model, [np.zeros(3, np.float32)])
    # 0.05: the sampler's own error on the uniform law, and chance
    assert distances["total_variation"] == pytest.approx(expected, abs=0.06)
    # W2 between the laws, by their quantile functions
    levels = (np.arange(10_000) + 0.5) / 10_000
    quantiles = np.log(np.exp(-3) + levels * 2 * math.sinh(3)) / 3
    assert distances["sliced_w2"] == pytest.approx(math.sqrt(np.mean((quantiles - (2 * levels - 1)) ** 2)), abs=0.03)
    assert distances["mmd"] > 0.3


def test_a_policy_that_samples_its_law_is_at_no_distance(monkeypatch):
    model = with_linear_critic(DQS("MlpPolicy", "Pendulum-v1", temperature=2.0, **small()), slope=6.0)

    def exact(observations, **_):
        uniforms = np.random.default_rng(0).random((len(observations), 1))
        return 2 * np.log(np.exp(-3) + uniforms * 2 * math.sinh(3)) / 3, None  # Pendulum's actions are in [-2, 2]

    monkeypatch.setattr(model, "predict", exact)
    th.manual_seed(0)
    distances = distances_to_critic(model, [np.zeros(3, np.float32), np.ones(3, np.float32)])
    # 20000 draws in 50 bins: sum sqrt(p / (2 pi n)) <= sqrt(50 / (2 pi 20000)) = 0.02
    assert distances["total_variation"] < 0.03
    assert distances["mmd"] < 0.05
    assert distances["sliced_w2"] < 0.02


def test_distances_are_refused_where_there_is_no_law():
    with pytest.raises(ValueError, match="got TD3"):
        distances_to_critic(TD3("MlpPolicy", "Pendulum-v1", buffer_size=10), [np.zeros(3, np.float32)])
    with pytest.raises(ValueError, match="two action dimensions"):
        distances_to_critic(DQS("MlpPolicy", "HalfCheetah-v5", **small()), [np.zeros(17, np.float32)])


def test_samples_are_of_one_observation_on_the_box():
    actions = sample_actions(DQS("MlpPolicy", "Pendulum-v1", **small()), np.zeros(3, np.float32), 200)
    assert actions.shape == (200, 1)
    assert actions.abs().max() <= 1
    assert actions.abs().max() > 0.9, "Pendulum's [-2, 2] is scaled back"


def test_distances_of_actions_with_two_axes():
    env = RandomEnv(spaces.Box(-1.0, 1.0, (3,)))
    env.action_space = spaces.Box(-1.0, 1.0, (2, 1))
    distances = distances_to_critic(DQS("MlpPolicy", env, **small()), [np.zeros(3, np.float32)])
    assert 0 <= distances["total_variation"] <= 1
    assert np.isfinite(list(distances.values())).all()


class Notes(MultimodalityCallback):
    """Keeps what was measured."""

    def _measures(self):
        measures = super()._measures()
        self.notes = [*getattr(self, "notes", []), measures]
        return measures


@pytest.mark.parametrize("algorithm", [DQS, SAC])
def test_callback_logs_measures_and_leaves_training_as_it_is(algorithm):
    def trained(callbacks):
        model = algorithm("MlpPolicy", "sb3_dqs/MultiGoal-v0", **small())
        model.set_logger(configure(None, []))
        return model.learn(90, callback=CallbackList(callbacks), log_interval=10**9)

    callback = Notes(40, roll_out_env="sb3_dqs/MultiGoal-v0", n_episodes=4, n_observations=3, n_actions=200)
    model, plain = trained([callback]), trained([])
    for name, parameter in model.policy.state_dict().items():
        assert th.equal(parameter, plain.policy.state_dict()[name]), name
    # at 40 and 80 steps, and at the end
    assert len(callback.notes) == 3
    expected = {"total_variation", "mmd", "sliced_w2", "success", "goals_reached", "goal_entropy"}
    assert set(callback.notes[-1]) == expected
    assert 0 <= callback.notes[-1]["total_variation"] <= 1
    assert len(callback.observations) == 3


def test_callback_leaves_out_what_is_not_defined():
    callback = Notes(30, n_actions=100)
    TD3("MlpPolicy", "Pendulum-v1", **small()).learn(60, callback=callback)
    assert callback.notes == [{}, {}]
    with pytest.raises(ValueError, match="n_episodes must be an integer >= 1, got 0"):
        MultimodalityCallback(100, n_episodes=0)
    with pytest.raises(ValueError, match="arena"):
        MultimodalityCallback(100, roll_out_env="Pendulum-v1", n_episodes=1)


def test_the_last_measure_is_logged_and_a_second_training_is_measured_too(tmp_path):
    callback = Notes(30, n_actions=100)
    model = DQS("MlpPolicy", "Pendulum-v1", **small())
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(60, callback=callback, log_interval=10**9)
    with (tmp_path / "progress.csv").open() as file:
        logged = [float(row["policy/total_variation"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([note["total_variation"] for note in callback.notes], rel=1e-3), "each round, none replaced"
    model.learn(60, callback=callback, log_interval=10**9)
    assert len(callback.notes) == 4


def test_modes_at_the_end_of_an_episode_count_as_goals():
    env = GaussianMixtureEnv()
    at_modes = [Episode(0.0, np.zeros((2, 2)), {"mode": mode}) for mode in (0, 0, 7, -1)]
    goals = goals_of(at_modes, env)
    assert (goals.success, goals.goals_reached, len(goals.counts)) == (0.75, 2, 40)
    assert goals_of([Episode(0.0, np.zeros((2, 2)), {})], env) is None


class BatchNorm(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, observations):
        return self.norm(observations)


def test_measures_after_training_use_the_running_statistics_of_batch_norm():
    policy_kwargs = {"net_arch": [16], "features_extractor_class": BatchNorm}
    model = DQS("MlpPolicy", "Pendulum-v1", **{**small(), "policy_kwargs": policy_kwargs}).learn(40)
    statistics = model.actor.features_extractor.norm.running_mean.clone()
    distances_to_critic(model, [np.ones(3, np.float32)], n_actions=50)
    model.policy.set_training_mode(True)
    denoising_paths(model, np.ones(3, np.float32), 4)
    assert th.equal(model.actor.features_extractor.norm.running_mean, statistics)
