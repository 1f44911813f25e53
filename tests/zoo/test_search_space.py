"""Does every trial build a model, and do its settings come back from ``trial.params`` alone?"""

import inspect
import warnings

import gymnasium as gym
import matplotlib.pyplot as plt
import optuna
import pytest
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from stable_baselines3 import HerReplayBuffer
from torch import nn

from sb3_dqs import DQS
from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.zoo import convert_dqs_params, sample_dqs_params

NO_HER = {"using_her_replay_buffer": False, "her_kwargs": {}}
HER_KWARGS = {"n_sampled_goal": 4, "copy_info_dict": True}
N_TRIALS = 60

optuna.logging.set_verbosity(optuna.logging.WARNING)


def sampled_trials(n_trials=N_TRIALS, n_actions=1, additional_args=NO_HER, budget=5_000):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    for _ in range(n_trials):
        trial = study.ask()
        trial.set_user_attr("n_timesteps", budget)
        settings = sample_dqs_params(trial, n_actions, 1, additional_args)
        study.tell(trial, settings["learning_rate"])
        yield study, trial, settings


def test_zoo_has_both_functions():
    assert HYPERPARAMS_SAMPLER["dqs"] is sample_dqs_params
    assert HYPERPARAMS_CONVERTER["dqs"] is convert_dqs_params


def test_settings_rebuild_exactly_from_the_parameters_of_the_trial():
    for study, trial, settings in sampled_trials():
        assert convert_dqs_params(study.trials[trial.number].params) == settings


def test_every_trial_builds_a_model_and_no_trial_costs_much_more_than_the_default():
    env = gym.make("Pendulum-v1")
    for _, _, settings in sampled_trials():
        model = DQS("MlpPolicy", env, buffer_size=10, device="cpu", **settings)
        assert model.n_score_samples % 2 == 0
        assert model.actor_batch_size <= model.batch_size
        default = BoxDiffusion(1, 1, [], nn.ReLU).n_score_samples * BoxDiffusion.DEFAULT_BATCH_SIZE
        assert model.n_score_samples * model.actor_batch_size <= 4 * default
        assert (model.temperature == "auto") == (model.target_entropy != "auto")


def test_settings_of_a_file_that_the_trial_does_not_sample_cannot_break_it():
    disturbing = {"diffusion": "paper", "target_entropy": -1.0, "cooling_updates": 10, "initial_temperature": 1.0}
    env = gym.make("Pendulum-v1")
    for _, _, settings in sampled_trials(10):
        assert DQS("MlpPolicy", env, buffer_size=10, device="cpu", **{**disturbing, **settings}).diffusion == "box"


def test_all_kinds_and_all_numbers_are_tried():
    found = [settings for _, _, settings in sampled_trials()]
    assert {settings["score_estimator"] for settings in found} == {"stein", "value", "gradient"}
    assert {settings["exploration_noise"] for settings in found} == {"correlated", "white"}
    assert {settings["temperature"] == "auto" for settings in found} == {True, False}
    for name, values in {
        "n_score_samples": {4, 8, 16, 32},
        "actor_batch_size": {16, 32, 64},
        "n_diffusion_steps": {3, 4, 5, 6, 7},
        "n_action_candidates": {1, 2, 4, 8, 16},
        "policy_delay": {1, 2, 3},
    }.items():
        assert {settings[name] for settings in found} == values, name


def test_defaults_of_dqs_lie_in_the_search_space():
    defaults = {name: parameter.default for name, parameter in inspect.signature(DQS).parameters.items()}
    params = {
        "one_minus_gamma": 1 - defaults["gamma"],
        "learning_rate": defaults["learning_rate"],
        "batch_size_pow": 8,
        "train_freq": defaults["train_freq"],
        "tau": defaults["tau"],
        "net_arch": "medium",
        "score_estimator": "stein",
        "n_score_samples_pow": 3,
        "actor_batch_size_pow": 6,
        "n_diffusion_steps": inspect.signature(BoxDiffusion).parameters["n_diffusion_steps"].default,
        "n_action_candidates_pow": 0,
        "policy_delay": BoxDiffusion.DEFAULT_POLICY_DELAY,
        "actor_learning_rate_factor": BoxDiffusion.DEFAULT_LEARNING_RATE_FACTOR,
        "exploration_noise": BoxDiffusion.DEFAULT_EXPLORATION_NOISE,
        "automatic_temperature": True,
        "target_entropy": -0.5,
        "cooling_updates": 5_000,
    }
    trial = optuna.trial.FixedTrial(params)
    trial.set_user_attr("n_timesteps", 20_000)
    with warnings.catch_warnings():
        # FixedTrial only warns of a value outside its range
        warnings.simplefilter("error")
        settings = sample_dqs_params(trial, 1, 1, NO_HER)
    for name in ("learning_rate", "batch_size", "tau", "n_action_candidates", "temperature"):
        assert settings[name] == defaults[name], name
    assert settings["gamma"] == pytest.approx(defaults["gamma"], abs=1e-15)


@pytest.mark.parametrize("budget", [300, 5_000, 1_000_000])
def test_cooling_ends_within_the_budget(budget):
    lengths = [
        settings["cooling_updates"] for _, _, settings in sampled_trials(budget=budget) if settings["temperature"] == "auto"
    ]
    assert lengths
    assert all(budget // 20 <= length <= budget for length in lengths)


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

    *_, (study, _, _) = sampled_trials(30)
    for plot in (visualization.plot_param_importances, visualization.plot_parallel_coordinate):
        axes = plot(study)
        assert axes.has_data()
    plt.close("all")
    # the value was the learning rate, which must come out as the setting that matters
    importances = optuna.importance.get_param_importances(study)
    assert max(importances, key=importances.get) == "learning_rate"
