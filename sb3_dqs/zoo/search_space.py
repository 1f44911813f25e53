"""Which settings of DQS does Optuna try, and how do they come back from a trial?"""

import json
from collections.abc import Mapping
from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER, convert_offpolicy_params

from sb3_dqs import DQS
from sb3_dqs.checks import InputError
from sb3_dqs.signatures import default_of
from sb3_dqs.temperature import COOLING_SHARE_OF_RUN
from sb3_dqs.zoo.values import as_python

# Budget of a trial where the zoo does not tell it, environment steps
DEFAULT_BUDGET = 20_000

# Settings sampled by their exponent of 2
POWERS_OF_TWO = ("n_score_samples", "actor_batch_size", "n_action_candidates")

# Settings that not every trial samples: with a value of a settings file in place of the default, it would not be that trial
NOT_ALWAYS_SAMPLED = ("target_entropy", "cooling_updates")

# Hindsight experience replay: settings that are sampled; the others of the YAML file are carried along
HER_SETTINGS = ("n_sampled_goal", "goal_selection_strategy")


# Settings of which trials sample parts, and these parts
SAMPLED_PARTS = {"policy_kwargs": ("net_arch",), "replay_buffer_kwargs": HER_SETTINGS}

# Settings that trials sample as a whole, each at least in some of them
SAMPLED = (
    "actor_batch_size",
    "actor_learning_rate_factor",
    "actor_tau",
    "batch_size",
    "cooling_updates",
    "exploration_correlation_time",
    "gamma",
    "gradient_steps",
    "learning_rate",
    "n_action_candidates",
    "n_corrector_proposals",
    "n_diffusion_steps",
    "n_score_samples",
    "policy_delay",
    "policy_tau",
    "target_entropy",
    "tau",
    "temperature",
    "train_freq",
)


def check_search(algo: str, settings: Mapping[str, Any] | None = None, given: Mapping[str, Any] | None = None) -> None:
    """
    :param algo: name of an algorithm whose settings are about to be searched, or taken from a trial
    :param settings: what the trials do not sample
    :param given: settings of the command line, which are meant: in those of a file trials replace what they sample
    :raises ValueError: if there is no search space for it, if the settings would break trials, or if one that was given would
        have no effect
    """
    if algo not in HYPERPARAMS_SAMPLER:
        why = ", whose values are published" if algo == "dqs_paper" else ""
        raise InputError(
            f"-optimize and --trial-id need a search space, and there is none for {algo}{why}; train it without them, or "
            f"choose --algo from {sorted(HYPERPARAMS_SAMPLER)}"
        )
    if algo == "dqs":
        _check_given(given or {})
    parts = (settings or {}).get("component_kwargs")
    if algo != "dqs" or not isinstance(parts, dict):  # the model names what is no dictionary
        return
    if "temperature" in parts:
        raise InputError(
            "-optimize tries both kinds of temperature, and component_kwargs['temperature'] is for one of them; leave it out"
        )
    if "corrector" in parts:
        raise InputError(
            "-optimize tries other numbers of proposals, none among them, and component_kwargs['corrector'] may not fit them; "
            "leave it out"
        )
    if "relative_sigma" in (parts.get("refiner") or {}):
        raise InputError(
            "-optimize tries entropy targets that the refiner's default noise allows, and component_kwargs['refiner'] has "
            "another relative_sigma; leave it out"
        )


def _check_given(given: Mapping[str, Any]) -> None:
    replaced = [name for name in SAMPLED if name in given]
    for name, parts in SAMPLED_PARTS.items():
        replaced += [f"{name}[{part!r}]" for part in parts if part in as_python(name, given.get(name) or {})]
    if replaced:
        raise InputError(
            f"-optimize samples {', '.join(replaced)}, so that values in -params would have no effect; leave them out"
        )


class TrialSettings(dict[str, Any]):
    """
    Settings that a trial is about to replace some of, as rl-zoo3 does by ``copy`` and ``update``: of ``policy_kwargs`` it
    replaces those that it samples, instead of all.
    """

    def copy(self) -> "TrialSettings":
        return type(self)(self)

    def update(self, sampled: Mapping[str, Any]) -> None:  # type: ignore[override]
        merged = {**(self.get("policy_kwargs") or {}), **(sampled.get("policy_kwargs") or {})}
        super().update(sampled)
        if merged:
            self["policy_kwargs"] = merged


def sample_dqs_params(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Suggest settings of DQS around its defaults, with the signature of the zoo's samplers.

    Only combinations that DQS accepts; at most 4 times the default number of critic evaluations per actor update, so that
    no trial takes many times as long as another.

    :param trial: its user attribute ``n_timesteps`` is the budget in environment steps; the length of the cooling is at most
        the share of it that DQS itself would cut it to
    :param n_actions: number of action dimensions
    :param n_envs: not used: the ratio of updates to environment steps is that of the zoo's SAC
    :param additional_args: ``using_her_replay_buffer`` and ``her_kwargs``, as the zoo gives them
    :return: arguments of DQS; the same as ``convert_dqs_params(trial.params)``
    """
    params: dict[str, Any] = {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.001, 0.05, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 5e-5, 2e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 7, 9),
        "train_freq": trial.suggest_int("train_freq", 1, 8),
        # 1 is no target network
        "tau": trial.suggest_categorical("tau", [1.0, 0.02, 0.005]),
        # 1 is no averaged critic, and no averaged actor
        "policy_tau": trial.suggest_categorical("policy_tau", [1.0, 0.03, 0.01, 0.003]),
        "actor_tau": trial.suggest_categorical("actor_tau", [1.0, 2e-3, 3e-4]),
        "net_arch": trial.suggest_categorical("net_arch", ["small", "medium", "big"]),
        # At most four times the product of the defaults, 8 and 128; pairs of proposals need an even number of samples, and
        # the regression points are rows of the batch, of at least 128
        "n_score_samples_pow": trial.suggest_int("n_score_samples_pow", 2, 5),
        "actor_batch_size_pow": trial.suggest_int("actor_batch_size_pow", 5, 7),
        "n_diffusion_steps": trial.suggest_int("n_diffusion_steps", 4, 8),
        "n_action_candidates_pow": trial.suggest_int("n_action_candidates_pow", 0, 4),
        "n_corrector_proposals": trial.suggest_categorical("n_corrector_proposals", [0, 4, 8, 16]),
        "policy_delay": trial.suggest_int("policy_delay", 1, 4),
        "actor_learning_rate_factor": trial.suggest_float("actor_learning_rate_factor", 0.5, 5.0, log=True),
        "exploration_correlation_time": trial.suggest_categorical("exploration_correlation_time", [0.0, 4.0, 16.0, 64.0]),
        "automatic_temperature": trial.suggest_categorical("automatic_temperature", [True, False]),
    }
    if params["automatic_temperature"]:
        # -1 per action dimension is the default; uniform actions have from 0.34 in one dimension on
        params["target_entropy"] = trial.suggest_float("target_entropy", -1.5 * n_actions, 0.2 * n_actions)
    else:
        # units of Q; 0.05 is the published constant
        params["temperature"] = trial.suggest_float("temperature", 0.01, 10.0, log=True)
    if params["automatic_temperature"] or params["exploration_correlation_time"] > 0:
        budget = int(trial.user_attrs.get("n_timesteps", DEFAULT_BUDGET))
        longest = max(int(COOLING_SHARE_OF_RUN * budget), 2)
        params["cooling_updates"] = trial.suggest_int("cooling_updates", max(longest // 10, 1), longest, log=True)
    if additional_args["using_her_replay_buffer"]:
        params |= _sample_her_params(trial, additional_args["her_kwargs"])

    converted = convert_dqs_params(params)
    for name in ("gamma", "batch_size", *POWERS_OF_TWO):
        trial.set_user_attr(name, converted[name])
    return converted


def convert_dqs_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Rebuild the arguments of DQS from the parameters of a trial alone, as the zoo's ``--trial-id`` does.

    :param sampled_params: ``trial.params``
    :return: arguments of DQS
    :raises ValueError: if these are not the parameters of such a trial
    """
    params = sampled_params.copy()
    if "automatic_temperature" not in params:
        raise InputError(
            "this trial holds no settings of dqs: it has not begun, or its study is of another algorithm; name another one by "
            "--trial-id or --study-name"
        )
    arguments: dict[str, Any] = {name: default_of(DQS, name) for name in NOT_ALWAYS_SAMPLED if name not in params}
    if params.pop("automatic_temperature"):
        arguments["temperature"] = "auto"
    for name in POWERS_OF_TWO:
        arguments[name] = 2 ** params.pop(f"{name}_pow")
    if "n_sampled_goal" in params:
        carried = json.loads(params.pop("her_kwargs", "{}"))
        arguments["replay_buffer_kwargs"] = {**carried, **{name: params.pop(name) for name in HER_SETTINGS}}
    return {**convert_offpolicy_params(params), **arguments}


def _sample_her_params(trial: optuna.Trial, her_kwargs: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {
        "n_sampled_goal": trial.suggest_int("n_sampled_goal", 1, 5),
        "goal_selection_strategy": trial.suggest_categorical("goal_selection_strategy", ["final", "episode", "future"]),
    }
    carried = {name: value for name, value in her_kwargs.items() if name not in HER_SETTINGS}
    if carried:
        # A choice of one, so that the trial's parameters alone rebuild the buffer
        params["her_kwargs"] = trial.suggest_categorical("her_kwargs", [json.dumps(carried, sort_keys=True)])
    return params
