"""Does exploration correlate the actions of an episode, and nothing else?"""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqs import DQS, DiffusionPolicy, PaperDQS
from sb3_dqs.checks import InputError
from sb3_dqs.exploration import CorrelatedNoise
from sb3_dqs.policies import DiffusionActor
from tests.conftest import SMALL, SMALL_PAPER, make_env

# no update in this time: the law of the policy does not change
UNTRAINED = {**SMALL, "learning_starts": 0, "gradient_steps": 0, "buffer_size": 50_000, "seed": 0}

# correlation of the persistent part after one step, with the default correlation time of 16 steps
LAG_ONE = np.exp(-1 / 16)


def course(noise, n_steps, persistent_share=1.0):
    return th.stack([noise.step(persistent_share) for _ in range(n_steps)])


@pytest.mark.parametrize("persistent_share", [0.0, 0.3, 1.0])
def test_each_noise_is_standard_normal_at_once_and_later(persistent_share):
    th.manual_seed(0)
    for draws in course(CorrelatedNoise(50_000, 1, correlation_time=16.0), 30, persistent_share)[[0, -1]]:
        # standard errors of mean, variance and fourth moment of 50,000 normal draws: 0.0045, 0.0063, 0.044
        assert draws.mean().item() == pytest.approx(0.0, abs=0.018)
        assert draws.var().item() == pytest.approx(1.0, abs=0.025)
        assert (draws**4).mean().item() == pytest.approx(3.0, abs=0.18)


@pytest.mark.parametrize(("persistent_share", "correlation_time"), [(0.0, 16.0), (0.3, 16.0), (1.0, 16.0), (1.0, 4.0)])
def test_autocorrelation_is_the_persistent_share_of_an_exponential(persistent_share, correlation_time):
    th.manual_seed(0)
    noise = course(CorrelatedNoise(20_000, 1, correlation_time), 65, persistent_share).squeeze(2)
    for lag in (1, 4, 16, 64):
        # standard error of the mean product of 20,000 pairs: at most 0.01
        expected = persistent_share * np.exp(-lag / correlation_time)
        assert (noise[0] * noise[lag]).mean().item() == pytest.approx(expected, abs=0.035)


def test_coordinates_and_environments_are_independent():
    th.manual_seed(0)
    noise = course(CorrelatedNoise(2, 2, correlation_time=16.0), 60_000).reshape(-1, 4)
    correlations = th.corrcoef(noise.T) - th.eye(4)
    # pairs of steps are correlated over 8 steps either way: as good as 60,000 / 16 independent ones, a standard error of 0.016
    assert correlations.abs().max().item() < 0.065


def test_restart_forgets_the_past_of_ended_episodes_alone():
    th.manual_seed(0)
    noise = CorrelatedNoise(3, 4_000, correlation_time=16.0)
    before = noise.step(1.0)
    noise.restart(th.tensor([False, True, False]))
    after = noise.step(1.0)
    # standard error of a mean product of 4000 pairs: 0.022 where they are correlated
    assert (before * after).mean(dim=1).tolist() == pytest.approx([LAG_ONE, 0.0, LAG_ONE], abs=0.09)


class Recorder(gym.Env):
    """Episodes of five steps whose observation says nothing; keeps the actions."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(np.array([[-2.0], [0.0]], np.float32), np.array([[2.0], [10.0]], np.float32))

    def __init__(self):
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.actions.append(action)
        self.n_steps += 1
        return np.zeros(1, np.float32), 0.0, False, self.n_steps == 5, {}


def explored(n_envs=20, n_steps=400, policy=DiffusionPolicy, n_corrector_proposals=0, **settings):
    """Actions taken by an untrained policy, by default uncorrected, (n_envs, n_steps, 2), scaled to [-1, 1]."""
    settings |= {"n_corrector_proposals": n_corrector_proposals}
    envs = [Recorder() for _ in range(n_envs)]
    vec_env = DummyVecEnv([lambda env=env: env for env in envs])
    model = DQS(policy, vec_env, **{**UNTRAINED, **settings})
    model.learn(n_steps * n_envs)
    stored = model.replay_buffer.actions[:n_steps].swapaxes(0, 1)
    taken = np.stack([env.actions for env in envs])[..., 0]
    assert stored == pytest.approx((taken - [0.0, 5.0]) / [2.0, 5.0], abs=1e-5)
    return stored


def lag_one(actions):
    """Correlation of successive actions: within episodes, and across their ends."""
    normal = (actions - actions.mean(axis=(0, 1))) / actions.std(axis=(0, 1))
    products = (normal[:, :-1] * normal[:, 1:]).mean(axis=(0, 2))
    ends = np.arange(1, len(products) + 1) % 5 == 0
    return products[~ends].mean(), products[ends].mean()


@pytest.mark.parametrize("shape", [{"n_envs": 20, "n_steps": 400}, {"n_envs": 1, "n_steps": 2_500}])
def test_actions_are_correlated_within_an_episode_and_not_across_its_end(shape):
    within, across = lag_one(explored(**shape))
    # before any training the action is nearly linear in the start noise. Across: 1600 pairs of two coordinates in
    # 20 environments, whose standard error is 0.02, and 500 pairs in one, 0.03
    assert within == pytest.approx(LAG_ONE, abs=0.1)
    assert across == pytest.approx(0.0, abs=0.12)


def test_correlation_fades_with_the_cooling():
    def at(cooled_share, **settings):
        settings = {**UNTRAINED, "n_corrector_proposals": 0, **settings}
        model = DQS("MlpPolicy", DummyVecEnv([Recorder] * 20), **settings)
        model.cooled_share = cooled_share
        model.learn(20 * 400)
        return lag_one(model.replay_buffer.actions[:400].swapaxes(0, 1))[0]

    # the mirrors at the walls, which noise of the wide untrained refiner meets, take a tenth of it
    assert at(0.5) == pytest.approx(LAG_ONE / 2, abs=0.1)
    assert at(1.0) == pytest.approx(0.0, abs=0.05)
    # without an automatic temperature too
    assert at(0.5, temperature=1.0) == pytest.approx(LAG_ONE / 2, abs=0.1)


def test_cooling_takes_its_updates_or_the_first_half_of_a_short_run():
    def cooled_shares(n_steps, cooling_updates):
        model = DQS("MlpPolicy", Recorder(), temperature=1.0, cooling_updates=cooling_updates, **SMALL)
        shares = {}

        def record(local_variables, global_variables):
            # before the update of this step
            shares[model.num_timesteps - 1] = model.cooled_share
            return True

        model.learn(n_steps, callback=record)
        return shares

    # after 20 steps of warm-up there is one update per step
    by_updates = cooled_shares(120, cooling_updates=40)
    assert [by_updates[step] for step in (20, 30, 40, 60, 100)] == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])
    # 80 steps come after the warm-up, so the cooling ends at step 60
    by_steps = cooled_shares(100, cooling_updates=10_000)
    assert [by_steps[step] for step in (20, 30, 40, 60, 99)] == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])


def test_correlation_time_is_the_one_asked_for_and_zero_is_white_noise():
    assert lag_one(explored(exploration_correlation_time=2.0))[0] == pytest.approx(np.exp(-1 / 2), abs=0.1)
    assert lag_one(explored(exploration_correlation_time=0)) == pytest.approx((0.0, 0.0), abs=0.08)


def test_actions_have_the_law_of_the_policy_where_the_observation_says_nothing_of_the_past():
    actions = explored(n_steps=1_000).reshape(20_000, 2)
    model = DQS("MlpPolicy", Recorder(), **UNTRAINED)
    with th.no_grad():
        samples = model.actor(th.zeros(20_000, 1)).numpy()
    quantiles = np.linspace(0.05, 0.95, 10)
    # the standard error of a share of 20,000 correlated draws, about five of which count as one, is below 0.008
    for coordinate in range(2):
        shares = np.searchsorted(np.sort(actions[:, coordinate]), np.quantile(samples[:, coordinate], quantiles)) / 20_000
        assert shares == pytest.approx(quantiles, abs=0.035)


def test_corrected_actions_persist_too():
    # the corrector chooses among a few actions, and changes its choice now and then: far above white noise, below LAG_ONE
    within, across = lag_one(explored(n_corrector_proposals=8))
    assert 0.6 < within < LAG_ONE
    assert across == pytest.approx(0.0, abs=0.12)


def test_corrected_actions_have_the_law_of_corrected_samples():
    actions = explored(n_steps=1_000, n_corrector_proposals=8).reshape(20_000, 2)
    model = DQS("MlpPolicy", Recorder(), n_corrector_proposals=8, **UNTRAINED)
    with th.no_grad():
        samples = model.policy(th.zeros(20_000, 1), noise=th.randn(20_000, model.policy.noise_dim)).numpy()
    quantiles = np.linspace(0.05, 0.95, 10)
    for coordinate in range(2):
        shares = np.searchsorted(np.sort(actions[:, coordinate]), np.quantile(samples[:, coordinate], quantiles)) / 20_000
        assert shares == pytest.approx(quantiles, abs=0.035)


def test_actions_of_training_are_single_samples_also_when_the_policy_has_cooled_and_predict_chooses(monkeypatch):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, cooling_updates=20, **SMALL)
    asked, explored = [], []
    original = model.policy.explore
    monkeypatch.setattr(model.policy, "sample_of_the_law", lambda obs: asked.append(obs) or model.actor(obs))
    monkeypatch.setattr(model.policy, "explore", lambda obs, noise: explored.append(noise) or original(obs, noise))
    model.learn(70)
    assert model.cooled_share == 1
    assert (len(asked), len(explored)) == (0, 50)
    model.predict(np.zeros((2, 3), np.float32))
    assert (len(asked), len(explored)) == (1, 50)


def test_first_actions_are_uniform_as_in_sb3():
    actions = explored(n_steps=1_000, learning_starts=20_000)
    assert lag_one(actions) == pytest.approx((0.0, 0.0), abs=0.05)
    assert np.quantile(actions, [0.25, 0.5, 0.75]) == pytest.approx([-0.5, 0.0, 0.5], abs=0.03)


class SafePolicy(DiffusionPolicy):
    """A user's policy that never uses more than a tenth of the second control."""

    def forward(self, obs, deterministic=False):
        return super().forward(obs, deterministic) * th.tensor([1.0, 0.1])


class SafePolicyFromNoise(DiffusionPolicy):
    """The same, which says that it can be told what noise to sample from."""

    def forward(self, obs, deterministic=False, noise=None):
        return super().forward(obs, deterministic, noise) * th.tensor([1.0, 0.1])


class SafeInPredict(DiffusionPolicy):
    """The same, where SB3's own policies have it."""

    def _predict(self, observation, deterministic=False):
        return super()._predict(observation, deterministic) * th.tensor([1.0, 0.1])


class SafeActor(DiffusionActor):
    """An actor that takes no noise."""

    def forward(self, obs, deterministic=False):
        return super().forward(obs, deterministic) * th.tensor([1.0, 0.1])


class WithSafeActor(DiffusionPolicy):
    actor_class = SafeActor


@pytest.mark.parametrize(
    ("policy", "correlation"),
    [(SafePolicy, 0.0), (SafePolicyFromNoise, LAG_ONE), (SafeInPredict, 0.0), (WithSafeActor, 0.0)],
)
def test_a_policy_of_ones_own_is_asked_and_explores_by_its_own_noise_unless_it_takes_ours(policy, correlation):
    actions = explored(policy=policy)
    assert np.abs(actions).max(axis=(0, 1)) == pytest.approx([1.0, 0.1], abs=0.05)
    assert lag_one(actions)[0] == pytest.approx(correlation, abs=0.1)


def test_an_algorithm_that_overrides_predict_explores_by_it():
    class Safe(DQS):
        def predict(self, observation, *args, **kwargs):
            action, state = super().predict(observation, *args, **kwargs)
            return 0.1 * action, state

    model = Safe("MlpPolicy", "Pendulum-v1", **UNTRAINED).learn(200)
    assert 0.08 < np.abs(model.replay_buffer.actions[:200]).max() <= 0.1


def test_a_policy_of_ones_own_explores_by_the_actor_itself_and_predicts_by_its_average(monkeypatch):
    model = DQS(SafePolicy, Recorder(), **UNTRAINED)
    asked = []
    for name in ("actor", "actor_average"):
        actor = getattr(model.policy, name)
        candidates = actor.candidates
        monkeypatch.setattr(
            actor, "candidates", lambda *args, name=name, candidates=candidates: asked.append(name) or candidates(*args)
        )
    model.learn(3)
    assert set(asked) == {"actor"}
    asked.clear()
    model.predict(np.zeros(1, np.float32))
    assert asked == ["actor_average"]


def test_the_actor_of_another_model_does_not_explore_with_ours():
    teacher = DQS("MlpPolicy", "Pendulum-v1", **SMALL).learn(30)
    asked = []

    class Residual(DQS):
        def predict(self, observation, *args, **kwargs):
            teacher.predict(observation)
            asked.append((teacher.policy.deployed_actor, self.policy.deployed_actor))
            return super().predict(observation, *args, **kwargs)

    model = Residual("MlpPolicy", "Pendulum-v1", **SMALL).learn(30)
    # every step after 20 of warm-up
    assert asked == [(teacher.policy.actor_average, model.policy.actor)] * 10


def test_the_published_algorithm_explores_by_white_noise():
    model = PaperDQS("MlpPolicy", Recorder(), **{**SMALL_PAPER, "learning_starts": 0}).learn(2)
    assert model.exploration_correlation_time == 0
    assert model.exploration_noise.decay == 0


def test_prediction_is_not_correlated():
    model = DQS("MlpPolicy", Recorder(), **UNTRAINED).learn(10)
    predictions = np.stack([model.predict(np.zeros(1, np.float32))[0][:, 0] for _ in range(2_000)])[None]
    assert lag_one(predictions) == pytest.approx((0.0, 0.0), abs=0.1)


def test_noise_goes_on_where_the_episode_goes_on():
    model = DQS("MlpPolicy", Recorder(), **UNTRAINED).learn(3)
    noise = model.exploration_noise
    assert model.learn(3, reset_num_timesteps=False).exploration_noise is noise
    assert model.learn(3).exploration_noise is not noise


def test_a_loaded_model_explores_in_another_number_of_environments(tmp_path):
    DQS("MlpPolicy", Recorder(), **UNTRAINED).learn(3).save(tmp_path / "model")
    model = DQS.load(tmp_path / "model", env=DummyVecEnv([Recorder] * 3))
    assert model.exploration_noise is None
    assert model.learn(6, reset_num_timesteps=False).exploration_noise.persistent.shape == (3, model.policy.noise_dim)


def test_a_model_that_saw_normalised_observations_does_not_go_on_without(tmp_path):
    normalised = VecNormalize(DummyVecEnv([make_env]))
    DQS("MlpPolicy", normalised, **SMALL).learn(25).save(tmp_path / "model")
    model = DQS.load(tmp_path / "model", env=make_env())
    with pytest.raises(InputError, match="trained with VecNormalize and has no environment with its statistics; use load"):
        model.learn(5, reset_num_timesteps=False)
    assert model.lacks_statistics
    model.sees_normalised = False
    assert model.learn(5, reset_num_timesteps=False).num_timesteps == 30
    # before the first update nothing has been learned from them
    young = DQS("MlpPolicy", normalised, **SMALL).learn(5)
    young.set_env(DummyVecEnv([make_env]))
    assert young.learn(5).num_timesteps == 5
