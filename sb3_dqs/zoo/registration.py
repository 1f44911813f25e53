"""How does rl-zoo3 come to know DQS? By entries in its tables, and by small additions to its experiment manager."""

import contextlib
import copy
import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch as th
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_dqs.checks import InputError
from sb3_dqs.zoo.checkpoints import CheckpointCompanions, has_finite_statistics
from sb3_dqs.zoo.progress import TrialProgress
from sb3_dqs.zoo.search_space import SAMPLED_PARTS, TrialSettings, check_search, convert_dqs_params, sample_dqs_params
from sb3_dqs.zoo.settings import ALGORITHMS, check_settings_file, settings_path
from sb3_dqs.zoo.values import as_python, usable_settings


def register() -> None:
    """
    Enter our algorithms into the zoo's tables, in place, since every module of the zoo shares them. A second call changes
    nothing.

    The experiment manager is extended so that it finds the settings shipped with this package where the zoo has none of
    its own, names a setting, trial or study that it cannot use, tells each trial its budget and shows how far it is, saves
    with every checkpoint what continues it, and saves the model where an environment gives what cannot be learned from.
    """
    ALGOS.update(ALGORITHMS)
    HYPERPARAMS_SAMPLER["dqs"] = sample_dqs_params
    HYPERPARAMS_CONVERTER["dqs"] = convert_dqs_params
    # Partly loaded where a user's custom_envs.py imports us while the zoo is being imported by record_video, which needs
    # no settings
    manager_module = sys.modules.get("rl_zoo3.exp_manager")
    if manager_module is None or hasattr(manager_module, "ExperimentManager"):
        _extend_experiment_manager()


@functools.cache  # once, however often we are registered
def _extend_experiment_manager() -> None:
    from rl_zoo3.exp_manager import ExperimentManager

    for name, extended in {
        "read_hyperparameters": _reading_our_settings,
        "load_trial": _naming_what_is_missing,
        "objective": _with_budget_and_progress,
        "create_callbacks": _saving_what_continues_checkpoints,
        "learn": _saving_the_model_after_bad_input,
        "hyperparameters_optimization": _naming_a_study_without_a_result,
    }.items():
        setattr(ExperimentManager, name, extended(getattr(ExperimentManager, name)))


def _reading_our_settings(read_hyperparameters: Callable) -> Callable:
    @functools.wraps(read_hyperparameters)
    def read(self: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        is_ours, given = self.algo in ALGORITHMS, self.custom_hyperparams or {}
        is_trial = self.trial_id is not None and self.storage and self.study_name
        sampled = self.load_trial(self.storage, self.study_name, self.trial_id) if is_trial else {}
        if is_trial:  # the zoo does so too, but takes trial 0 for no trial
            self.custom_hyperparams = {**sampled, **given}
        if is_ours and getattr(self.args, "conf_file", None) is None and not Path(self.config).exists():
            self.config = str(settings_path(self.algo))
        check_settings_file(self.config, self.env_name.gym_id)
        settings, saved_settings = read_hyperparameters(self)
        if is_ours and is_trial:
            of_the_file = _settings_of_the_file(self, read_hyperparameters)
            settings = {**settings, **_mappings_of_the_trial(sampled, of_the_file, given)}
        if is_ours and self.continue_training and _statistics_beside(self).is_file():
            # the zoo goes on with them, and saves them only where it has been told to normalise
            settings["normalize"] = settings.get("normalize") or True
        if is_ours:
            settings = usable_settings(settings, self.algo, self.config)
            saved_settings.update(settings)
        if self.optimize_hyperparameters:
            check_search(self.algo, settings, given)
        return settings, saved_settings

    return read


def _settings_of_the_file(manager: Any, read_hyperparameters: Callable) -> dict[str, Any]:
    """What trial and command line have taken the place of."""
    manager = copy.copy(manager)
    manager.trial_id = manager.custom_hyperparams = None
    with contextlib.redirect_stdout(io.StringIO()):
        settings, _ = read_hyperparameters(manager)
    return settings


def _mappings_of_the_trial(sampled: dict[str, Any], of_the_file: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The zoo takes whole mappings from one place; the search has put what it sampled into those that it was given."""
    merged = {}
    for name in SAMPLED_PARTS:
        of_the_trial = sampled.get(name, {})
        if name in given:
            merged[name] = {**of_the_trial, **as_python(name, given[name])}
        elif of_the_trial:
            merged[name] = {**as_python(name, of_the_file.get(name) or {}), **of_the_trial}
    return merged


def _statistics_beside(manager: Any) -> Path:
    """Where the zoo looks for those of the agent that it continues."""
    return Path(manager.trained_agent).parent / str(manager.env_name) / "vecnormalize.pkl"


def _naming_what_is_missing(load_trial: Callable) -> Callable:
    @functools.wraps(load_trial)
    def load(self: Any, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
        check_search(self.algo)
        if storage.endswith(".log") and not Path(storage).is_file():
            raise InputError(f"no study {study_name!r}: there is no file {storage}; -f names another log folder")
        try:
            return load_trial(self, storage, study_name, trial_id, convert)
        except IndexError as error:
            raise InputError(f"study {study_name!r} in {storage} has no trial {trial_id}") from error
        except KeyError as error:
            if "Record does not exist" not in str(error):
                raise
            raise InputError(f"no study {study_name!r} in {storage}; see: optuna studies --storage {storage}") from error

    return load


def _with_budget_and_progress(objective: Callable) -> Callable:
    @functools.wraps(objective)
    def objective_with_both(self: Any, trial: optuna.Trial) -> float:
        if self.algo in ALGORITHMS:
            trial.set_user_attr("n_timesteps", self.n_timesteps)
        # a copy, since trials may run in several threads, each with its own bar
        manager = copy.copy(self)
        if self.algo in ALGORITHMS:
            manager._hyperparams = TrialSettings(self._hyperparams)
        specified = self.specified_callbacks or []
        specified = specified if isinstance(specified, list) else [specified]
        with contextlib.closing(TrialProgress(trial.number)) as progress:
            manager.specified_callbacks = [*specified, progress]
            return objective(manager, trial)

    return objective_with_both


def _naming_a_study_without_a_result(optimize: Callable) -> Callable:
    @functools.wraps(optimize)
    def optimize_and_report(self: Any) -> None:
        try:
            optimize(self)
        except ValueError as error:
            if "No trials are completed yet" not in str(error):
                raise
            raise InputError(
                f"study {self.study_name!r} has no finished trial to report: all were pruned, or are still running, as in a "
                "journal those of killed processes are for ever; let it have more trials, or take another --study-name"
            ) from error

    return optimize_and_report


def _saving_what_continues_checkpoints(create_callbacks: Callable) -> Callable:
    @functools.wraps(create_callbacks)
    def create(self: Any) -> None:
        create_callbacks(self)
        if self.algo in ALGORITHMS and self.save_freq > 0:
            companions = CheckpointCompanions(self.save_freq, self.save_path, self.params_path, self.save_replay_buffer)
            self.callbacks.append(companions)

    return create


def _saving_the_model_after_bad_input(learn: Callable) -> Callable:
    @functools.wraps(learn)
    def learn_and_save(self: Any, model: Any) -> None:
        n_updates_before = getattr(model, "_n_updates", 0)
        try:
            learn(self, model)
        except InputError:
            # not where a run that goes on has not come to that
            has_learned = self.algo in ALGORITHMS and model._n_updates > n_updates_before
            # what was not finite has not been stored, so the model is as it was; it may have been made so by other means
            if has_learned and all(th.isfinite(parameter).all() for parameter in model.policy.parameters()):
                self.normalize = self.normalize and has_finite_statistics(model.get_vec_normalize_env())
                self.save_trained_model(model)
            raise

    return learn_and_save
