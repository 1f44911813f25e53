"""Is PaperDQS the algorithm of arXiv:2410.01312, with its published values, and nothing of ours?"""

import inspect

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_dqs import DQS, LogLinearSchedule, PaperDQS
from sb3_dqs.checks import InputError
from sb3_dqs.diffusion.paper import PaperDiffusion
from sb3_dqs.paper import PaperCnnPolicy, PaperMultiInputPolicy, PaperPolicy
from tests.conftest import SMALL, SMALL_PAPER

PUBLISHED = {
    "learning_rate": 3e-4,
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "batch_size": 256,
    "tau": 0.005,
    "gamma": 0.99,
    "train_freq": 1,
    "gradient_steps": 1,
    "n_steps": 1,
    "temperature": 0.05,
    "n_score_samples": 1_000,
    "n_diffusion_steps": 500,
    "actor_batch_size": 256,
}

# What is ours alone
OURS = {
    "policy_tau",
    "actor_tau",
    "target_entropy",
    "cooling_updates",
    "policy_delay",
    "actor_learning_rate_factor",
    "n_action_candidates",
    "n_corrector_proposals",
    "exploration_correlation_time",
}


def make(env="Pendulum-v1", policy="MlpPolicy", **settings):
    return PaperDQS(policy, env, seed=0, **{**SMALL_PAPER, **settings})


def without_network(model):
    """A score network whose output is zero: the reverse-time SDE then adds noise alone."""
    for parameter in model.actor.diffusion.parameters():
        parameter.data.zero_()
    return model


def test_the_published_values_stand_in_the_signature():
    parameters = inspect.signature(PaperDQS.__init__).parameters
    assert {name: parameters[name].default for name in PUBLISHED} == PUBLISHED


def test_what_is_ours_is_no_setting_of_the_published_algorithm_and_switched_off():
    ours, published = (set(inspect.signature(algorithm.__init__).parameters) for algorithm in (DQS, PaperDQS))
    assert ours - published == OURS
    model = make()
    assert (model.policy_delay, model.actor_learning_rate_factor) == (1, 1.0)
    assert (model.policy_tau, model.actor_tau) == (1.0, 1.0)
    assert (model.n_action_candidates, model.n_corrector_proposals) == (1, 0)
    assert model.actor.refiner is None
    assert model.exploration_correlation_time == 0.0


@pytest.mark.parametrize(("part", "argument"), [("refiner", {"relative_sigma": 0.3}), ("corrector", {"sigmas": [0.3]})])
def test_settings_of_parts_that_are_ours_are_refused(part, argument):
    with pytest.raises(ValueError, match=rf"of PaperDQS must be one of \['diffusion'\], got '{part}'"):
        make(component_kwargs={part: argument})


@pytest.mark.parametrize(
    ("name", "policy_class", "env", "extractor"),
    [
        ("MlpPolicy", PaperPolicy, "Pendulum-v1", FlattenExtractor),
        ("CnnPolicy", PaperCnnPolicy, FakeImageEnv(screen_height=36, screen_width=36, discrete=False), NatureCNN),
        ("MultiInputPolicy", PaperMultiInputPolicy, SimpleMultiObsEnv(discrete_actions=False), CombinedExtractor),
    ],
)
def test_each_policy_has_its_extractor_the_published_actor_and_twin_critics_with_a_target(name, policy_class, env, extractor):
    model = make(env, name, buffer_size=100).learn(23)
    assert type(model.policy) is policy_class
    for part in (model.actor, model.critic, model.critic_target):
        assert isinstance(part.features_extractor, extractor)
    assert isinstance(model.actor.diffusion, PaperDiffusion)
    assert type(model.critic) is type(model.critic_target) is ContinuousCritic
    assert len(model.critic.q_networks) == 2
    for optimizer in (model.actor.optimizer, model.critic.optimizer):
        assert isinstance(optimizer, th.optim.Adam)
        assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
        assert optimizer.param_groups[0]["lr"] == 3e-4


def test_critic_and_its_optimizer_may_be_chosen():
    class OwnCritic(ContinuousCritic):
        pass

    model = make(policy_kwargs={"net_arch": [8], "critic_class": OwnCritic, "critic_betas": (0.5, 0.9)})
    assert type(model.critic) is OwnCritic
    assert model.critic.optimizer.param_groups[0]["betas"] == (0.5, 0.9)


def test_regression_points_are_rows_of_the_replay_buffer_alone(monkeypatch):
    model = make(actor_batch_size=8).learn(1)
    # a row is known by its number, in observation and action
    numbers = th.arange(16.0).unsqueeze(1)
    batch = ReplayBufferSamples(numbers.expand(16, 3), numbers / 16, -numbers.expand(16, 3), th.zeros(16, 1), th.zeros(16, 1))
    regress, seen = model.actor.diffusion.regress, []
    monkeypatch.setattr(model.actor.diffusion, "regress", lambda *args: seen.append(args[:2]) or regress(*args))
    for _ in range(50):
        model._update_actor(batch, batch.next_observations, th.full((16, 1), -1.0))
    for features, actions in seen:
        assert len(features) == len(actions.unique()) == 8
        assert th.equal(features, (16 * actions).expand(8, 3))
    # the chance that a row is never among 8 of 16 is 2^-50
    assert {action for _, actions in seen for action in (16 * actions).flatten().tolist()} == set(range(16))


def test_actions_start_at_noise_and_get_noise_at_every_step():
    # Without drift the action before tanh is normal. Its variance is that of the start, sigma(1)^2 = 1, and that of the noise
    # of 50 steps, the sum of g(t)^2 / 50, where g^2 is the rate at which sigma^2 grows
    model = without_network(make(n_diffusion_steps=50))
    times = 1 - np.arange(50) / 50
    process = model.actor.diffusion.process
    added = sum(process.diffusion_coefficient(time) ** 2 for time in times) / 50
    # sigma_max^2 - sigma_min^2 = 1 comes from the integral; the upper sum of so steep a rate is some tenths more
    assert 1.0 < added < 1.3
    actions, _ = model.predict(np.zeros((20_000, 3), np.float32))
    variance = np.arctanh(actions / 2).var()
    # four standard errors of the variance of 20,000 normal draws: 4 %
    assert variance == pytest.approx(1 + added, rel=0.04)


def test_deterministic_prediction_has_no_noise_at_all():
    model = without_network(make())
    assert model.predict(np.ones(3, np.float32), deterministic=True)[0] == pytest.approx(0.0, abs=1e-7)
    model = make().learn(30)
    observations = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    features = th.as_tensor(observations)
    expected = 2 * model.actor.diffusion.sample_actions(features, th.zeros(5, 1)).detach().numpy()
    np.testing.assert_allclose(model.predict(observations, deterministic=True)[0], expected, atol=1e-6)


@pytest.mark.parametrize(("squash", "expected"), [("tanh", 2 * np.tanh(1.5)), ("clip", 2.0)])
def test_rare_arguments_reach_the_diffusion(squash, expected):
    rare = {"squash": squash, "sigma_max": 1.5, "sigma_min": 1e-3}
    model = without_network(make(component_kwargs={"diffusion": rare}))
    model.actor.start_noise.fill_(1.0)
    # from sigma_max times the start noise without drift: 1.5, on actions in [-2, 2]
    assert model.predict(np.zeros(3, np.float32), deterministic=True)[0] == pytest.approx(expected, abs=1e-4)
    assert model.actor.diffusion.process.sigma_min == 1e-3


def test_a_rare_argument_of_ours_is_refused():
    with pytest.raises(
        InputError, match=r"PaperDiffusion has no argument 'on_policy_share' in component_kwargs\['diffusion'\]"
    ):
        make(component_kwargs={"diffusion": {"on_policy_share": 0.5}})


@pytest.mark.parametrize(("temperature", "remedy"), [("auto", "0.05 is its constant"), ("1e-1", "write 0.1 without quotes")])
def test_a_temperature_that_is_no_number_is_refused_at_construction_and_later(temperature, remedy):
    message = f"temperature must be .*got '{temperature}'.*{remedy}"
    with pytest.raises(InputError, match=message):
        make(temperature=temperature)
    model = make()
    with pytest.raises(InputError, match=message):
        model.temperature = temperature
    assert model.temperature == 0.05
    assert model.thermostat.value.item() == pytest.approx(0.05)


def test_network_is_fed_the_temperature_and_saved_with_it(tmp_path):
    model = make(temperature=LogLinearSchedule(10.0, 1.0)).learn(50)
    # the temperature of the last update, at the end of training
    assert model.actor.diffusion.temperature.item() == pytest.approx(1.0)
    model.save(tmp_path / "model")
    loaded = PaperDQS.load(tmp_path / "model")
    assert loaded.actor.diffusion.temperature.item() == pytest.approx(1.0)
    observation = np.ones(3, np.float32)
    before, _ = loaded.predict(observation, deterministic=True)
    loaded.actor.diffusion.temperature.fill_(5.0)
    assert not np.array_equal(loaded.predict(observation, deterministic=True)[0], before)


def test_it_is_logged_under_its_own_figures():
    model = make().learn(40, log_interval=None)
    logged = {name.removeprefix("train/") for name in model.logger.name_to_value if name.startswith("train/")}
    # entropies are measured by ours alone
    assert logged == {
        "learning_rate",
        "n_updates",
        "critic_loss",
        "actor_loss",
        "mean_q",
        "wall_share",
        "effective_sample_size",
        "temperature",
    }


def test_its_folders_of_tensorboard_have_its_own_name(tmp_path):
    for algorithm, small in ((DQS, SMALL), (PaperDQS, SMALL_PAPER)):
        algorithm("MlpPolicy", "Pendulum-v1", tensorboard_log=str(tmp_path), **small).learn(1)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["DQS_1", "PaperDQS_1"]
