"""May a setting change on a live model, and what has to follow? Errors name the remedy."""

import inspect
import io
import pathlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv

from sb3_dqs.checks import InputError
from sb3_dqs.replay import fit_action_noise, fit_parts
from sb3_dqs.settings import COPIES, as_kept, check_batch_size, for_a_temperature_that_is_set, settle
from sb3_dqs.signatures import ArgumentError, check_argument_names, settings_of, takes_any

if TYPE_CHECKING:
    from sb3_dqs.dqs import DQS

# Built into networks, buffer or generators when the model is made
FIXED = {
    "buffer_size",
    "replay_buffer_class",
    "replay_buffer_kwargs",
    "optimize_memory_usage",
    "n_steps",
    "n_score_samples",
    "n_diffusion_steps",
    "n_action_candidates",
    "n_corrector_proposals",
    "component_kwargs",
    "policy_kwargs",
    "seed",
    "device",
}

# Settings that the file's state depends on as they were: how far the cooling has come
CHANGED_ONCE_LOADED = ("cooling_updates",)

SelfLiveSettings = TypeVar("SelfLiveSettings", bound="LiveSettings")


class LiveSettings:
    """
    An algorithm of SB3's kind that refuses unknown arguments, with a hint, and changes of settings that would not act.

    A class derived from it sets ``_is_set_up`` once its parts are built.
    """

    def __new__(cls: type[SelfLiveSettings], *args: Any, **kwargs: Any) -> SelfLiveSettings:
        # before Python itself refuses the names of other algorithms, to tell their counterparts; a subclass may take any
        if not takes_any(inspect.signature(cls.__init__).parameters):
            check_argument_names(cls, kwargs)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        # a setting of a live model acts from now on, or raises; a property of a subclass sees to that itself
        is_setting = name in settings_of(type(self)) and not inspect.isdatadescriptor(  # type: ignore[arg-type]
            getattr(type(self), name, None)
        )
        if is_setting and self.__dict__.get("_is_set_up"):
            change(self, name, value)  # type: ignore[arg-type]
        else:
            super().__setattr__(name, value)

    @classmethod
    def load(
        cls: type[SelfLiveSettings],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfLiveSettings:
        """As in SB3. :raises TypeError: (also a ValueError) if an argument is unknown, or a custom object nearly a setting"""
        check_argument_names(cls, kwargs)
        custom_objects = dict(custom_objects or {})
        _check_custom_objects(cls, custom_objects)
        if isinstance(kwargs.get("policy_kwargs"), dict):
            kwargs["policy_kwargs"] = as_kept(kwargs["policy_kwargs"])
        changed = {n: given.pop(n) for given in (custom_objects, kwargs) for n in CHANGED_ONCE_LOADED if n in given}
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)  # type: ignore[misc]
        for name, value in changed.items():
            if value != getattr(model, name):
                setattr(model, name, value)
        return model

    @contextmanager
    def holding(self, **others: Any) -> Iterator[None]:
        """
        :param others: values that settings have inside, unchecked; afterwards they are as they were
        """
        given = {name: getattr(self, name) for name in others}
        self.__dict__.update(others)
        try:
            yield
        finally:
            self.__dict__.update(given)


def change(model: "DQS", name: str, value: Any) -> None:
    """
    Change a setting of a live model, so that it acts from now on; or leave the model as it was.

    :param model: set up
    :param name: of a setting
    :param value: its new value
    :raises ValueError: if the setting is fixed, or the value not usable
    """
    algorithm = type(model).__name__
    parameters = inspect.signature(type(model).__init__).parameters
    if name not in parameters and not takes_any(parameters):
        raise InputError(f"{name} is no setting of {algorithm}")
    if name in FIXED:
        raise InputError(f"{name} is built into the model and cannot change on a live one; {_when_made(name)}")
    previous = dict(model.__dict__)
    model.__dict__[name] = value
    if name == "temperature" and not isinstance(value, str):
        model.__dict__["component_kwargs"] = for_a_temperature_that_is_set(model.component_kwargs)
    try:
        settle(model)
        _let_act(model, name)
    except BaseException:  # a schedule of the user's may raise anything
        model.__dict__.clear()
        model.__dict__.update(previous)
        raise


def _let_act(model: "DQS", name: str) -> None:
    # what a setting that has been changed is built into
    if name == "learning_rate":
        model._setup_lr_schedule()
    elif name == "train_freq":
        model._convert_train_freq()
    elif name == "exploration_correlation_time":
        model.exploration_noise = None
    elif name == "cooling_updates":
        # by updates alone: the run that was going on has been asked for with another pace
        model.steps_in_run = 0
        model.cooled_share = model._cooled_share_by_now()
        model.thermostat.start_update(model.cooled_share)
    elif name == "batch_size":
        check_batch_size(model)
    elif name in COPIES:
        argument, copied = COPIES[name]
        is_copied = getattr(model, name) < 1
        if getattr(model.policy, argument) != is_copied:
            with_or_without = "with" if is_copied else "without"
            raise InputError(f"{name}={getattr(model, name)} needs a model {with_or_without} {copied}; {_when_made(name)}")
    elif name == "gamma":
        fit_parts(model)
    elif name == "action_noise":
        fit_action_noise(model)
    elif name in ("temperature", "target_entropy"):
        model._setup_temperature()


def _check_custom_objects(algorithm: type[LiveSettings], names: Iterable[str]) -> None:
    # SB3 ignores names that the file has not; any attribute of a model may be among them, also private ones
    known = settings_of(algorithm)  # type: ignore[arg-type]
    for name in {name for name in names if not name.startswith("_")} - known:
        if nearest := get_close_matches(name, known, n=1, cutoff=0.85):
            raise ArgumentError(
                f"custom_objects holds {name!r}, which is no setting of {algorithm.__name__}; did you mean {nearest[0]!r}?"
            )


def _when_made(name: str) -> str:
    if name == "policy_kwargs":
        return "pass it when the model is made"
    return f"pass it when the model is made or, for a saved model, to load(path, {name}=...)"
