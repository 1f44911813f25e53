"""How does rl-zoo3 come to know DQS? By entries in its tables, and by small additions to its experiment manager."""

import contextlib
import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_dqs.checks import InputError
from sb3_dqs.zoo.checkpoints import ReplayBufferCheckpoint
from sb3_dqs.zoo.progress import TrialProgress
from sb3_dqs.zoo.search_space import check_search, convert_dqs_params, sample_dqs_params
from sb3_dqs.zoo.settings import ALGORITHMS, check_settings_file, settings_path
from sb3_dqs.zoo.values import usable_settings

_registered: set[str] = set()


def register() -> None:
    """
    Enter our algorithms into the zoo's tables, in place, since every module of the zoo shares them. A second call changes
    nothing.

    The experiment manager is extended so that it finds the settings shipped with this package where the zoo has none of
    its own, names a setting or trial that it cannot use, tells each trial its budget and shows how far it is, and saves the
    replay buffer with every checkpoint where it is to be saved at all.
    """
    ALGOS.update(ALGORITHMS)
    HYPERPARAMS_SAMPLER["dqs"] = sample_dqs_params
    HYPERPARAMS_CONVERTER["dqs"] = convert_dqs_params
    # Partly loaded where a user's custom_envs.py imports us while the zoo is being imported by record_video, which needs
    # no settings
    manager_module = sys.modules.get("rl_zoo3.exp_manager")
    if "manager" not in _registered and (manager_module is None or hasattr(manager_module, "ExperimentManager")):
        _extend_experiment_manager()
        _registered.add("manager")


def _extend_experiment_manager() -> None:
    from rl_zoo3.exp_manager import ExperimentManager

    for name, extended in {
        "read_hyperparameters": _reading_our_settings,
        "load_trial": _naming_what_is_missing,
        "objective": _with_budget_and_progress,
        "create_callbacks": _saving_the_replay_buffer,
    }.items():
        setattr(ExperimentManager, name, extended(getattr(ExperimentManager, name)))


def _reading_our_settings(read_hyperparameters: Callable) -> Callable:
    @functools.wraps(read_hyperparameters)
    def read(self: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        is_ours = self.algo in ALGORITHMS
        if self.trial_id == 0 and self.storage and self.study_name:
            # The zoo takes trial 0 for no trial
            trial_settings = self.load_trial(self.storage, self.study_name, 0)
            self.custom_hyperparams = {**trial_settings, **(self.custom_hyperparams or {})}
        if is_ours and getattr(self.args, "conf_file", None) is None and not Path(self.config).exists():
            self.config = str(settings_path(self.algo))
        check_settings_file(self.config, self.env_name.gym_id)
        settings, saved_settings = read_hyperparameters(self)
        if is_ours:
            settings = usable_settings(settings, self.algo, self.config)
            saved_settings.update(settings)
        if self.optimize_hyperparameters:
            check_search(self.algo, settings)
        return settings, saved_settings

    return read


def _naming_what_is_missing(load_trial: Callable) -> Callable:
    @functools.wraps(load_trial)
    def load(self: Any, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
        check_search(self.algo)
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
        specified = self.specified_callbacks or []
        specified = specified if isinstance(specified, list) else [specified]
        with contextlib.closing(TrialProgress(trial.number)) as progress:
            manager.specified_callbacks = [*specified, progress]
            return objective(manager, trial)

    return objective_with_both


def _saving_the_replay_buffer(create_callbacks: Callable) -> Callable:
    @functools.wraps(create_callbacks)
    def create(self: Any) -> None:
        create_callbacks(self)
        if self.algo in ALGORITHMS and self.save_freq > 0 and self.save_replay_buffer:
            self.callbacks.append(ReplayBufferCheckpoint(self.save_freq, self.save_path, self.params_path))

    return create
