"""Does every trial build a model, and do its settings come back from ``trial.params`` alone?"""

import inspect
import warnings

import gymnasium as gym
import matplotlib.pyplot as plt
import optuna
import pytest
from stable_baselines3 import HerReplayBuffer

from sb3_dqs import DQS
from sb3_dqs.zoo import convert_dqs_params, sample_dqs_params
from sb3_dqs.zoo.search_space import SAMPLED, SAMPLED_PARTS, TrialSettings, check_search

NO_HER = {"using_her_replay_buffer": False, "her_kwargs": {}}
HER_KWARGS = {"n_sampled_goal": 4, "copy_info_dict": True}
N_TRIALS = 60
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(DQS.__init__).parameters.items()}

optuna.logging.set_verbosity(optuna.logging.WARNING)


def sampled_trials(n_trials=N_TRIALS, n_actions=1, additional_args=NO_HER, budget=5_000):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    for _ in range(n_trials):
        trial = study.ask()
        trial.set_user_attr("n_timesteps", budget)
        settings = sample_dqs_params(trial, n_actions, 1, additional_args)
        study.tell(trial, settings["learning_rate"])
        yield study, trial, settings


def test_published_algorithm_has_no_search_space():
    check_search("dqs")
    with pytest.raises(ValueError, match="there is none for dqs_paper, whose values are published"):
        check_search("dqs_paper")


def test_arguments_of_the_diffusion_may_come_from_a_settings_file():
    check_search("dqs", {"component_kwargs": {"diffusion": {"sigma_min": 0.01}}})
    check_search("dqs", {"component_kwargs": None})
    with pytest.raises(ValueError, match="component_kwargs"):
        check_search("dqs", {"component_kwargs": {"temperature": {"initial": 1.0}}})


def test_what_is_refused_beside_a_search_is_what_trials_sample():
    her = {"using_her_replay_buffer": True, "her_kwargs": {"copy_info_dict": True}}
    sampled = {name for _, _, settings in sampled_trials(additional_args=her) for name in settings}
    assert sampled == {*SAMPLED, *SAMPLED_PARTS}
    for name in SAMPLED:
        with pytest.raises(ValueError, match=f"-optimize samples {name}, so that"):
            check_search("dqs", given={name: 1})
    check_search("dqs", given={"learning_starts": 10, "policy_kwargs": "dict(n_critics=3)"})
    with pytest.raises(ValueError, match="n_sampled_goal"):
        check_search("dqs", given={"replay_buffer_kwargs": "dict(n_sampled_goal=4, copy_info_dict=True)"})


def test_settings_rebuild_exactly_from_the_parameters_of_the_trial():
    for study, trial, settings in sampled_trials():
        assert convert_dqs_params(study.trials[trial.number].params) == settings


def test_every_trial_builds_a_model_and_no_trial_costs_much_more_than_the_default():
    env = gym.make("Pendulum-v1")
    for _, _, settings in sampled_trials():
        model = DQS("MlpPolicy", env, buffer_size=10, device="cpu", **settings)
        assert model.n_score_samples % 2 == 0
        assert model.actor_batch_size <= model.batch_size
        default = DEFAULTS["n_score_samples"] * DEFAULTS["actor_batch_size"]
        assert model.n_score_samples * model.actor_batch_size <= 4 * default
        assert (model.temperature == "auto") == (model.target_entropy != "auto")


def test_settings_of_a_file_that_the_trial_does_not_sample_cannot_break_it():
    of_the_file = {"temperature": 7.0, "target_entropy": -1.25, "cooling_updates": 11}
    env = gym.make("Pendulum-v1")
    kinds = set()
    for _, trial, settings in sampled_trials(20):
        model = DQS("MlpPolicy", env, buffer_size=10, device="cpu", **{**of_the_file, **settings})
        for name in ("target_entropy", "cooling_updates"):
            assert getattr(model, name) == trial.params.get(name, DEFAULTS[name])
        assert model.temperature == trial.params.get("temperature", "auto")
        kinds.add((model.temperature == "auto", model.exploration_correlation_time > 0))
    assert len(kinds) == 4


def test_length_of_the_cooling_is_sampled_where_it_has_an_effect():
    for _, trial, settings in sampled_trials():
        cools = settings["temperature"] == "auto" or settings["exploration_correlation_time"] > 0
        assert ("cooling_updates" in trial.params) == cools


def test_all_kinds_and_all_numbers_are_tried():
    found = [settings for _, _, settings in sampled_trials()]
    assert {settings["temperature"] == "auto" for settings in found} == {True, False}
    for name, values in {
        "n_score_samples": {4, 8, 16, 32},
        "actor_batch_size": {32, 64, 128},
        "n_diffusion_steps": {4, 5, 6, 7, 8},
        "n_action_candidates": {1, 2, 4, 8, 16},
        "n_corrector_proposals": {0, 4, 8, 16},
        "policy_delay": {1, 2, 3, 4},
        "exploration_correlation_time": {0.0, 4.0, 16.0, 64.0},
    }.items():
        assert {settings[name] for settings in found} == values, name


def test_defaults_of_dqs_lie_in_the_search_space():
    as_they_are = ("learning_rate", "train_freq", "tau", "n_diffusion_steps", "policy_delay", "actor_learning_rate_factor")
    as_they_are += ("exploration_correlation_time", "cooling_updates", "policy_tau", "actor_tau", "n_corrector_proposals")
    powers = ("batch_size", "n_score_samples", "actor_batch_size", "n_action_candidates")
    params = {
        **{name: DEFAULTS[name] for name in as_they_are},
        **{f"{name}_pow": DEFAULTS[name].bit_length() - 1 for name in powers},
        "one_minus_gamma": 1 - DEFAULTS["gamma"],
        "net_arch": "medium",
        "automatic_temperature": True,
        "target_entropy": -0.5,
    }
    trial = optuna.trial.FixedTrial(params)
    trial.set_user_attr("n_timesteps", 20_000)
    with warnings.catch_warnings():
        # FixedTrial only warns of a value outside its range
        warnings.simplefilter("error")
        settings = sample_dqs_params(trial, 1, 1, NO_HER)
    for name in (*as_they_are, *powers, "temperature", "gradient_steps"):
        assert settings[name] == DEFAULTS[name], name
    assert settings["gamma"] == pytest.approx(DEFAULTS["gamma"], abs=1e-15)


@pytest.mark.parametrize("budget", [300, 5_000, 1_000_000])
def test_cooling_ends_within_the_first_half_of_the_budget(budget):
    # where DQS ends it at the latest, so that no two trials with the same cooling have different values
    lengths = [
        trial.params["cooling_updates"] for _, trial, _ in sampled_trials(budget=budget) if "cooling_updates" in trial.params
    ]
    assert budget // 20 <= min(lengths) < budget // 10
    assert budget // 4 < max(lengths) <= budget // 2


@pytest.mark.parametrize("n_actions", [1, 6])
def test_entropy_target_scales_with_the_action(n_actions):
    targets = [s["target_entropy"] for _, _, s in sampled_trials(n_actions=n_actions) if s["temperature"] == "auto"]
    assert -1.5 * n_actions <= min(targets) < -1.0 * n_actions
    assert 0 < max(targets) <= 0.3 * n_actions


def test_hindsight_replay_is_sampled_and_the_rest_of_its_settings_carried():
    additional_args = {"using_her_replay_buffer": True, "her_kwargs": HER_KWARGS}
    for study, trial, settings in sampled_trials(20, additional_args=additional_args):
        her = settings["replay_buffer_kwargs"]
        assert her["copy_info_dict"] is True
        assert her["n_sampled_goal"] == trial.params["n_sampled_goal"]
        assert convert_dqs_params(study.trials[trial.number].params) == settings


def test_hindsight_settings_build_a_model():
    from stable_baselines3.common.envs import BitFlippingEnv

    env = BitFlippingEnv(n_bits=4, continuous=True)
    additional_args = {"using_her_replay_buffer": True, "her_kwargs": HER_KWARGS}
    for _, _, settings in sampled_trials(3, n_actions=4, additional_args=additional_args):
        model = DQS("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, device="cpu", buffer_size=100, **settings)
        assert model.replay_buffer.n_sampled_goal == settings["replay_buffer_kwargs"]["n_sampled_goal"]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_importance_and_parallel_coordinates_can_be_drawn():
    from optuna.visualization import matplotlib as visualization

    *_, (study, _, _) = sampled_trials(100)
    for plot in (visualization.plot_param_importances, visualization.plot_parallel_coordinate):
        axes = plot(study)
        assert axes.has_data()
    plt.close("all")
    # the value was the learning rate, which must come out as the setting that matters
    importances = optuna.importance.get_param_importances(study)
    assert max(importances, key=importances.get) == "learning_rate"


def test_settings_that_are_no_dictionaries_are_left_to_the_model():
    check_search("dqs", {"component_kwargs": "dict(refiner=dict(relative_sigma=0.2))"})
    check_search("dqs", {"component_kwargs": {"refiner": None}})


@pytest.mark.parametrize(
    ("of_the_file", "sampled", "expected"),
    [
        (
            {"policy_kwargs": {"n_critics": 3, "net_arch": [8]}},
            {"policy_kwargs": {"net_arch": [64]}},
            {"n_critics": 3, "net_arch": [64]},
        ),
        ({"policy_kwargs": None}, {"policy_kwargs": {"net_arch": [64]}}, {"net_arch": [64]}),
        ({}, {"policy_kwargs": {"net_arch": [64]}}, {"net_arch": [64]}),
        ({"policy_kwargs": {"n_critics": 3}}, {}, {"n_critics": 3}),
    ],
)
def test_a_trial_replaces_those_settings_of_the_policy_that_it_samples(of_the_file, sampled, expected):
    settings = TrialSettings({"gamma": 0.5, **of_the_file}).copy()
    settings.update({"gamma": 0.9, **sampled})
    assert settings == {"gamma": 0.9, "policy_kwargs": expected}
