"""Are roll-outs and measures of a policy right where the answer is known?"""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_dqs import DQS, DiffusionPolicy, LogLinearSchedule, PaperDQS
from sb3_dqs.envs import GaussianMixtureEnv
from sb3_dqs.inspection.evaluation import (
    Episode,
    ExactPolicy,
    boltzmann_temperature,
    distances_to_critic,
    goals_of,
    roll_out,
    sample_actions,
)
from sb3_dqs.inspection.plotting import denoising_paths
from tests.conftest import RandomEnv
from tests.inspection.models import small, with_linear_critics


def test_untrained_policy_is_as_far_from_a_linear_law_as_the_uniform_one():
    # An untrained denoiser with zero output samples nearly uniform actions. With slope / temperature = 3 the law is
    # 3 exp(3 a) / (2 sinh 3), above the uniform density 1 / 2 from a* = ln(sinh(3) / 3) / 3 on, so their total variation is
    # (1 - a*) / 2 subtracted from the law's mass above a*
    model = with_linear_critics(
        DQS("MlpPolicy", "Pendulum-v1", temperature=2.0, actor_tau=1.0, n_corrector_proposals=0, **small()), [6.0]
    )
    model.actor.refiner = None
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


class LinearLaw(DiffusionPolicy):
    """Samples exp(3 a) on [-1, 1] by its inverse CDF; the actor is never asked."""

    def forward(self, obs, deterministic=False):
        return th.log(math.exp(-3) + th.rand(len(obs), 1) * 2 * math.sinh(3)) / 3


def test_a_policy_that_samples_its_law_is_at_no_distance_though_its_actor_is():
    model = with_linear_critics(DQS(LinearLaw, "Pendulum-v1", temperature=2.0, **small()), [6.0])
    th.manual_seed(0)
    distances = distances_to_critic(model, [np.zeros(3, np.float32), np.ones(3, np.float32)])
    # 20000 draws in 50 bins: sum sqrt(p / (2 pi n)) <= sqrt(50 / (2 pi 20000)) = 0.02
    chance = distances["total_variation_of_exact_draws"]
    assert 0.01 < chance < 0.02
    assert distances["total_variation"] < 1.5 * chance
    assert distances["mmd"] < 0.05
    assert distances["sliced_w2"] < 0.02


@pytest.mark.parametrize("action_dim", [1, 2])
def test_the_exact_policy_draws_from_the_law_of_the_critic(action_dim):
    env = RandomEnv(spaces.Box(-1.0, 1.0, (3,)), action_dim)
    model = with_linear_critics(DQS("MlpPolicy", env, temperature=2.0, **small()), [6.0, -12.0][:action_dim])
    th.manual_seed(0)
    draws, _ = ExactPolicy(model).predict(np.zeros((4_000, 3), np.float32))
    actions = model.policy.scale_action(draws)
    # exp(k a) on [-1, 1] has mean coth(k) - 1 / k and variance 1 + 1 / k^2 - coth(k)^2
    for k, column in zip((3.0, -6.0), actions.T, strict=False):
        coth = 1 / math.tanh(k)
        std = math.sqrt(1 + 1 / k**2 - coth**2)
        assert column.mean() == pytest.approx(coth - 1 / k, abs=4 * std / math.sqrt(4_000))
        assert column.std() == pytest.approx(std, rel=0.06)


def test_the_exact_policy_takes_dictionaries_and_more_rows_than_it_asks_for_at_once(monkeypatch):
    env = RandomEnv(spaces.Dict({"first": spaces.Box(-1.0, 1.0, (2,)), "second": spaces.Box(-1.0, 1.0, (1,))}), 1)
    model = with_linear_critics(DQS("MultiInputPolicy", env, temperature=2.0, **small()), [6.0])
    monkeypatch.setattr(ExactPolicy, "MAX_ROWS", 300_000)  # of 1,000 cells each: 300 observations
    th.manual_seed(0)
    draws, _ = ExactPolicy(model).predict({"first": np.zeros((1_000, 2)), "second": np.zeros((1_000, 1))})
    assert draws.shape == (1_000, 1)
    # as above: mean of exp(3 a), whose standard deviation is 0.33
    assert model.policy.scale_action(draws).mean() == pytest.approx(1 / math.tanh(3) - 1 / 3, abs=4 * 0.33 / math.sqrt(1_000))


def test_the_exact_policy_can_be_rolled_out():
    model = DQS("MlpPolicy", "sb3_dqs/MultiGoal-v0", **small())
    envs = [gym.make("sb3_dqs/MultiGoal-v0") for _ in range(2)]
    episodes = roll_out(ExactPolicy(model), envs, seed=0, deterministic=False)
    assert [len(episode.observations) > 1 for episode in episodes] == [True, True]
    with pytest.raises(ValueError, match="deterministic must be False"):
        roll_out(ExactPolicy(model), envs, seed=0, deterministic=True)
    with pytest.raises(ValueError, match=r"must aim at a Boltzmann law .* got TD3"):
        ExactPolicy(TD3("MlpPolicy", "Pendulum-v1", buffer_size=10))


class Doubled(nn.Module):
    """A critic of one's own, which is no ``ContinuousCritic``: Q = 2 * slope * a."""

    def __init__(self, critic, slope):
        super().__init__()
        self.critic, self.slope = critic, slope

    def set_training_mode(self, mode):
        self.train(mode)

    def forward(self, observations, actions):
        return (2 * self.slope * actions, 2 * self.slope * actions + 1)


def test_the_law_is_that_of_any_critic():
    model = DQS(LinearLaw, "Pendulum-v1", temperature=2.0, **small())
    model.policy.critic_average = Doubled(model.critic, slope=3.0)
    th.manual_seed(0)
    assert distances_to_critic(model, [np.zeros(3, np.float32)])["total_variation"] < 0.03


def test_distances_are_refused_where_there_is_no_law():
    with pytest.raises(ValueError, match="got TD3"):
        distances_to_critic(TD3("MlpPolicy", "Pendulum-v1", buffer_size=10), [np.zeros(3, np.float32)])
    with pytest.raises(ValueError, match="two action dimensions"):
        distances_to_critic(DQS("MlpPolicy", RandomEnv(spaces.Box(-1, 1, (3,)), 3), **small()), [np.zeros(3, np.float32)])
    with pytest.raises(ValueError, match="observations must hold at least one"):
        distances_to_critic(DQS("MlpPolicy", "Pendulum-v1", **small()), [])


def test_the_temperature_in_force_is_that_of_the_schedule_of_the_attribute_and_of_load(tmp_path):
    model = DQS("MlpPolicy", "Pendulum-v1", **small())
    assert boltzmann_temperature(model) == pytest.approx(3.0), "hot start: three times a spread of Q of one"
    model.temperature = 0.5
    assert boltzmann_temperature(model) == 0.5
    model.save(tmp_path / "model")
    assert boltzmann_temperature(DQS.load(tmp_path / "model", temperature=0.25)) == 0.25
    model = DQS("MlpPolicy", "Pendulum-v1", temperature=LogLinearSchedule(4.0, 1.0), **small())
    assert boltzmann_temperature(model) == 4.0
    paper = PaperDQS("MlpPolicy", "Pendulum-v1", **small(), n_score_samples=4, n_diffusion_steps=3)
    assert boltzmann_temperature(paper) == pytest.approx(0.05)


def test_the_temperature_of_sac_is_its_entropy_coefficient():
    assert boltzmann_temperature(SAC("MlpPolicy", "Pendulum-v1", ent_coef=0.3, **small())) == pytest.approx(0.3)
    assert boltzmann_temperature(SAC("MlpPolicy", "Pendulum-v1", ent_coef="auto_0.2", **small())) == pytest.approx(0.2)
    assert boltzmann_temperature(TD3("MlpPolicy", "Pendulum-v1", **small())) is None


def test_measures_follow_a_temperature_that_was_just_set():
    # the policy samples slope / temperature = 3, which is the law at temperature 2; at temperature 20 it is 0.3
    model = with_linear_critics(DQS(LinearLaw, "Pendulum-v1", temperature=2.0, **small()), [6.0])
    th.manual_seed(0)
    at_two = distances_to_critic(model, [np.zeros(3, np.float32)])["total_variation"]
    model.temperature = 20.0
    # where 3 e^(3 a) / (2 sinh 3) crosses 0.3 e^(0.3 a) / (2 sinh 0.3)
    crossing = math.log(0.3 * math.sinh(3) / (3 * math.sinh(0.3))) / 2.7

    def mass_above(slope):
        return (math.exp(slope) - math.exp(slope * crossing)) / (2 * math.sinh(slope))

    at_twenty = distances_to_critic(model, [np.zeros(3, np.float32)])["total_variation"]
    assert at_two < 0.03
    assert at_twenty == pytest.approx(mass_above(3.0) - mass_above(0.3), abs=0.03)


def test_samples_are_of_one_observation_on_the_box():
    actions = sample_actions(DQS("MlpPolicy", "Pendulum-v1", **small()), np.zeros(3, np.float32), 200)
    assert actions.shape == (200, 1)
    assert actions.abs().max() <= 1
    assert actions.abs().max() > 0.9, "Pendulum's [-2, 2] is scaled back"


@pytest.mark.parametrize("algorithm", [DQS, TD3])
def test_actions_that_are_not_finite_are_an_error(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", **small())
    with pytest.raises(ValueError, match="not finite"):
        sample_actions(model, np.array([np.nan, 0.0, 0.0], np.float32), 3)
    with pytest.raises(ValueError, match="n_samples must be an integer >= 1"):
        sample_actions(model, np.zeros(3, np.float32), 0)


def test_a_critic_that_is_not_finite_is_an_error():
    model = with_linear_critics(DQS("MlpPolicy", "Pendulum-v1", **small()), [math.nan])
    with pytest.raises(ValueError, match="q_fn must be finite on the box, got nan"):
        distances_to_critic(model, [np.zeros(3, np.float32)])


def test_distances_of_actions_with_two_axes():
    env = RandomEnv(spaces.Box(-1.0, 1.0, (3,)))
    env.action_space = spaces.Box(-1.0, 1.0, (2, 1))
    distances = distances_to_critic(DQS("MlpPolicy", env, **small()), [np.zeros(3, np.float32)])
    assert 0 <= distances["total_variation"] <= 1
    assert np.isfinite(list(distances.values())).all()


def test_modes_at_the_end_of_an_episode_count_as_goals():
    env = GaussianMixtureEnv()
    at_modes = [Episode(0.0, np.zeros((2, 2)), {"mode": mode}) for mode in (0, 0, 7, -1)]
    goals = goals_of(at_modes, env)
    assert (goals.success, goals.goals_reached, len(goals.goal_counts)) == (0.75, 2, 40)
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
    model.policy.set_training_mode(True)
    statistics = {name: value.clone() for name, value in model.policy.state_dict().items() if "norm.running" in name}
    assert len(statistics) == 8, "mean and variance of actor and critic, and of the averages of both"
    distances_to_critic(model, [np.ones(3, np.float32)], n_actions=50)
    model.policy.set_training_mode(True)
    denoising_paths(model, np.ones(3, np.float32), 4)
    for name, value in statistics.items():
        assert th.equal(model.policy.state_dict()[name], value), name


def test_roll_outs_of_a_policy_repeat_and_end():
    model = DQS("MlpPolicy", "sb3_dqs/MultiGoal-v0", **small())
    envs = [gym.make("sb3_dqs/MultiGoal-v0") for _ in range(3)]
    first, second = (roll_out(model, envs, seed=5, deterministic=True) for _ in range(2))
    assert [episode.total_reward for episode in first] == [episode.total_reward for episode in second]
    start, _ = envs[0].reset(seed=6)
    assert first[1].observations[0].tolist() == start.tolist()
    assert all(1 <= len(episode.observations) - 1 <= 30 for episode in first)
    assert {"goal", "is_success"} <= set(first[0].info)
    started = roll_out(model, envs, seed=5, deterministic=True, options={"start": (4.5, 0.0)})
    assert all(episode.observations[0].tolist() == [4.5, 0.0] for episode in started)


class InPlace(gym.Env):
    """Moves by half a unit a step, in the one array that it returns each time."""

    observation_space, action_space = spaces.Box(-7.0, 7.0, (2,)), spaces.Box(-1.0, 1.0, (2,))

    def __init__(self):
        self.position = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position[:] = 0
        return self.position, {}

    def step(self, action):
        self.position += 0.5
        return self.position, 0.0, bool(self.position[0] >= 1.5), False, {}


def test_roll_outs_keep_observations_that_the_environment_writes_over():
    (episode,) = roll_out(DQS("MlpPolicy", InPlace(), **small()), [InPlace()], seed=0, deterministic=True)
    assert episode.observations[:, 0].tolist() == [0.0, 0.5, 1.0, 1.5]


def test_roll_outs_normalise_observations_as_in_training():
    vec_env = VecNormalize(DummyVecEnv([lambda: gym.make("sb3_dqs/MultiGoal-v0")]), norm_reward=False)
    model = DQS("MlpPolicy", vec_env, **small())
    vec_env.obs_rms.mean, vec_env.obs_rms.var = np.array([2.0, 0.0]), np.array([9.0, 1.0])
    seen = []
    predict = model.predict
    model.predict = lambda observations, **keywords: (seen.append(observations), predict(observations, **keywords))[1]
    (episode,) = roll_out(model, [gym.make("sb3_dqs/MultiGoal-v0")], seed=0, deterministic=True)
    assert seen[0][0] == pytest.approx((episode.observations[0] - [2.0, 0.0]) / [3.0, 1.0], abs=1e-4)


def test_roll_outs_want_the_statistics_that_a_loaded_model_was_trained_with(tmp_path):
    vec_env = VecNormalize(DummyVecEnv([lambda: gym.make("sb3_dqs/MultiGoal-v0")]), norm_reward=False)
    model = DQS("MlpPolicy", vec_env, **small()).learn(30)
    model.save(tmp_path / "model")
    envs = [gym.make("sb3_dqs/MultiGoal-v0")]
    for env in (None, envs[0]):
        loaded = DQS.load(tmp_path / "model", env=env)
        with pytest.raises(ValueError, match="model was trained with VecNormalize and has no environment with its statistics"):
            roll_out(loaded, envs, seed=0, deterministic=True)
    (truth,) = roll_out(model, envs, seed=0, deterministic=True)
    (same,) = roll_out(DQS.load(tmp_path / "model", env=vec_env), envs, seed=0, deterministic=True)
    np.testing.assert_array_equal(truth.observations, same.observations)


def test_draws_that_share_their_noise_are_not_taken_for_independent_ones():
    model = SAC("MlpPolicy", "sb3_dqs/MultiGoal-v0", use_sde=True, **small())
    envs = [gym.make("sb3_dqs/MultiGoal-v0") for _ in range(2)]
    with pytest.raises(ValueError, match="model must not have use_sde=True, got SAC"):
        sample_actions(model, np.zeros(2, np.float32), 10)
    with pytest.raises(ValueError, match="model must not have use_sde=True"):
        roll_out(model, envs, seed=0, deterministic=False)
    assert len(roll_out(model, envs, seed=0, deterministic=True)) == 2


class Broken(RandomEnv):
    """Its third reward is no number."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, math.nan if self.step_count == 3 else reward, *rest


def test_roll_outs_that_cannot_be_are_named():
    model = DQS("MlpPolicy", RandomEnv(spaces.Box(-1, 1, (2,))), **small())
    with pytest.raises(ValueError, match="at least one environment"):
        roll_out(model, [], seed=0, deterministic=True)
    with pytest.raises(ValueError, match="got Dict"):
        roll_out(model, [RandomEnv(spaces.Dict({"a": spaces.Box(-1, 1, (2,))}))], seed=0, deterministic=True)
    with pytest.raises(ValueError, match=r"reward of envs\[1\] is not finite at step 3"):
        roll_out(model, [RandomEnv(spaces.Box(-1, 1, (2,))), Broken(spaces.Box(-1, 1, (2,)))], seed=0, deterministic=True)
