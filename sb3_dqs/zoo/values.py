"""Can the zoo work with the values of settings? What it would stumble over before the model, which checks the rest, exists."""

import importlib
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import yaml
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqs.checks import InputError, as_integer, check_choice, check_positive, is_finite_number
from sb3_dqs.zoo.settings import ALGORITHMS, check_setting_names

# What the zoo cannot do without
REQUIRED = {"n_timesteps": "the length of training, also where -n overrides it", "policy": "for instance MlpPolicy"}

# Whole numbers that the zoo works with: the smallest allowed value, and a remedy
INTEGERS = {
    "n_timesteps": (1, "it is the length of training, in steps"),
    "n_envs": (1, "1 is the default"),
    "frame_stack": (1, "leave it out for no stacking"),
}

# The zoo evaluates text of these as Python, to an object of this type
PYTHON = {
    "monitor_kwargs": dict,
    "normalize": dict,
    "policy_kwargs": dict,
    "replay_buffer_class": type,
    "replay_buffer_kwargs": dict,
}

# Full names of classes: one or a list, each alone or with its arguments
CLASSES = ("callback", "env_wrapper", "vec_env_wrapper")

# Numbers as Python, JSON and YAML 1.2 have them. PyYAML reads YAML 1.1, which takes 1e-3 and 1.0e4 for text.
NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")


def usable_settings(settings: Mapping[str, Any], algo: str, source: str) -> dict[str, Any]:
    """
    :param settings: of one environment, from a file and the command line
    :param algo: name of the algorithm
    :param source: the file, for messages
    :return: the same, with numbers in place of text that is one, and whole numbers as integers
    :raises ValueError: if a setting is unknown, missing, or cannot be used
    """
    check_setting_names(settings, algo, source)
    for name, meaning in REQUIRED.items():
        if settings.get(name) is None:
            raise InputError(f"{source} must set {name}, {meaning}")
    # what an environment is to be made with is its own affair
    usable = {name: value if name == "env_kwargs" else with_numbers(value) for name, value in settings.items()}
    for name, value in usable.items():
        if value is not None:
            usable[name] = _usable(name, value)
    _check_policy(usable["policy"], algo)
    if (usable.get("frame_stack") or 1) > 1 and usable.get("normalize"):
        raise InputError(
            f"frame_stack={usable['frame_stack']} stacks observations that normalize={usable['normalize']!r} has normalised, "
            "where the replay buffer keeps those from before it, not stacked; leave one of them out"
        )
    if usable.get("noise_type") is not None:
        check_positive("noise_std", usable.get("noise_std"), "leave noise_type out for no action noise")
    elif usable.get("noise_std") is not None:
        raise InputError(
            f"noise_std={usable['noise_std']!r} needs a noise_type, normal or ornstein-uhlenbeck; or leave it out"
        )
    return usable


def with_numbers(value: Any) -> Any:
    """
    :param value: from a settings file
    :return: the same, with numbers in place of text that is one by mistake, also inside lists and mappings
    """
    # text that YAML 1.1 would read as a number without quotes has had some
    if isinstance(value, str) and NUMBER.fullmatch(value) and isinstance(yaml.safe_load(value), str):
        number = float(value)
        return int(number) if number.is_integer() else number
    if type(value) is dict:
        return {key: with_numbers(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(with_numbers(inner) for inner in value)
    return value


def _usable(name: str, value: Any) -> Any:
    """A setting as the zoo can take it, or an error."""
    if name in INTEGERS:
        return as_integer(name, value, *INTEGERS[name])
    if name == "train_freq" and isinstance(value, (list, tuple)):
        return _usable_train_freq(value)
    if name == "learning_rate":
        _check_learning_rate(value)
    elif name == "noise_type":
        check_choice(name, value, ["normal", "ornstein-uhlenbeck"])
    elif name in PYTHON:
        as_python(name, value)
    elif name in CLASSES:
        for entry in value if isinstance(value, list) else [value]:
            _check_class(name, entry)
    return value


def _usable_train_freq(train_freq: list | tuple) -> tuple[int, str]:
    if len(train_freq) != 2:
        raise InputError(
            f"train_freq must be a number of steps, or a number and a unit, got {train_freq!r}; e.g. [1, episode]"
        )
    frequency, unit = train_freq
    check_choice("the unit of train_freq", unit, ["step", "episode"])
    return as_integer("the number of train_freq", frequency, 1, f"1 trains after every {unit}"), unit


def _check_learning_rate(rate: Any) -> None:
    falls_linearly = isinstance(rate, str) and rate.startswith("lin_") and NUMBER.fullmatch(rate.removeprefix("lin_"))
    if not falls_linearly and not (is_finite_number(rate) and rate >= 0):
        raise InputError(
            f"learning_rate must be a number >= 0, or lin_ and the number from which it falls linearly to 0, got {rate!r}; "
            "for example lin_0.001"
        )


def as_python(name: str, value: Any) -> Any:
    """
    :param name: of a setting whose text is Python to the zoo
    :param value: of a settings file
    :return: what it evaluates to
    :raises ValueError: if it does not, or not to what is wanted
    """
    from rl_zoo3 import exp_manager

    found, wanted = value, PYTHON[name]
    if isinstance(value, str):
        try:
            found = eval(value, dict(vars(exp_manager)))  # the names that the zoo evaluates it with
        except Exception as error:
            raise InputError(f"text of {name} is Python, and {value!r} cannot be evaluated: {error}") from error
    elif name == "normalize" and isinstance(value, bool):
        return value
    if wanted is type and not (isinstance(found, type) and issubclass(found, ReplayBuffer)):
        raise InputError(f"{name} must be a class of replay buffers, got {value!r}; for example HerReplayBuffer")
    if not isinstance(found, wanted):
        raise InputError(f"{name} must be a mapping, or text such as \"dict(name='value')\", got {value!r}")
    return found


def _check_policy(policy: Any, algo: str) -> None:
    if isinstance(policy, str) and "." in policy:
        _check_class("policy", policy)
    else:
        check_choice("policy", policy, ALGORITHMS[algo].policy_aliases)


def _check_class(name: str, entry: Any) -> None:
    if isinstance(entry, dict):
        if len(entry) != 1:
            raise InputError(f"each {name} must be one class, its arguments indented below it, got {entry!r}")
        entry = next(iter(entry))
    if isinstance(entry, (bool, int, float)):
        raise InputError(f"{name} must be the full name of a class, such as package.module.Class, got {entry!r}")
    if not isinstance(entry, str):
        return  # a class or an object already, of settings in Python
    module_name, _, class_name = entry.rpartition(".")
    if not module_name:
        raise InputError(f"{name} must be the full name of a class, such as package.module.{entry}, got {entry!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"{name} {entry!r} cannot be imported: {error}") from error
    if not hasattr(module, class_name):
        nearest = get_close_matches(class_name, dir(module), n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise InputError(f"{name} {entry!r} cannot be imported: {module_name} has no {class_name!r}{hint}")
