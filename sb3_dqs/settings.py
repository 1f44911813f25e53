"""Are the settings usable, and may they change on a live model? Errors name value and remedy."""

import functools
import inspect
import io
import pathlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from sb3_contrib.common.torch_layers import BatchRenorm
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.type_aliases import GymEnv

from sb3_dqs.checks import (
    InputError,
    SpaceError,
    as_integer,
    check_choice,
    check_positive,
    check_share,
    hint_at_text,
    is_finite_number,
)
from sb3_dqs.critics import evaluating
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.diffusion.refiner import Refiner
from sb3_dqs.temperature import cooled_share

if TYPE_CHECKING:
    from sb3_dqs.dqs import DQS
    from sb3_dqs.policies import DiffusionActor

# Whole numbers: the smallest allowed value, and a remedy; None for the default
INTEGERS: dict[str, tuple[int, str | None]] = {
    "buffer_size": (1, None),
    "learning_starts": (0, "0 starts learning at once"),
    "batch_size": (1, None),
    "gradient_steps": (-1, "-1 does as many updates as steps were taken"),
    "n_steps": (1, "1 is the usual one-step return"),
    "cooling_updates": (0, "0 starts with the final entropy target"),
    "actor_batch_size": (1, None),
    "policy_delay": (1, "1 updates actor and critic together"),
    "n_action_candidates": (1, "1 leaves nothing to choose among"),
    "n_corrector_proposals": (0, "0 leaves actions as they are"),
}

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

# Settings that say how closely a copy of a network follows it, at 1 there is none -> which argument of the policy asks for the
# copy, and what it is called
COPIES = {
    "tau": ("has_target_network", "target network"),
    "policy_tau": ("has_average_critic", "averaged critic"),
    "actor_tau": ("has_average_actor", "averaged actor"),
}

# Arguments of the policy that DQS itself passes
BUILT_IN_POLICY_KWARGS = {
    "diffusion_kwargs",
    "refiner_kwargs",
    "corrector_kwargs",
    *(argument for argument, _ in COPIES.values()),
}

# Arguments of the policy that are classes, and an example of each
CLASSES_OF_POLICY = {
    "activation_fn": "torch.nn.ReLU",
    "critic_class": "sb3_dqs.critics.BatchRenormCritic",
    "features_extractor_class": "stable_baselines3.common.torch_layers.FlattenExtractor",
    "optimizer_class": "torch.optim.Adam",
}

# Not settings that a live model could take: SB3 itself sets them
NOT_SETTINGS = {"self", "policy", "env", "_init_setup_model"}

# Arguments of SB3's and sb3-contrib's algorithms that DQS has not, and what to use
COUNTERPARTS = {
    "ent_coef": "temperature, in units of Q: a number, a schedule or 'auto'",
    "target_update_interval": "tau: the target network follows at every update",
    "use_sde": "exploration_correlation_time, which correlates the actions of an episode",
    "sde_sample_freq": "exploration_correlation_time, which correlates the actions of an episode",
    "use_sde_at_warmup": "exploration_correlation_time, which correlates the actions of an episode",
    "target_policy_noise": "temperature: the policy itself is random",
    "target_noise_clip": "temperature: the policy itself is random",
    "top_quantiles_to_drop_per_net": "policy_kwargs=dict(n_critics=...): the smallest of the ensemble counts",
    "log_std_init": "temperature: there is no standard deviation to start from",
    "use_expln": "temperature: there is no standard deviation to transform",
    "clip_mean": "nothing: actions are inside the box by construction",
    "n_quantiles": "policy_kwargs=dict(n_critics=...): a critic has one value, and the smallest of the ensemble counts",
    **{
        name: f"policy_kwargs=dict(critic_kwargs=dict({name}=...))"
        for name in ("batch_norm", "batch_norm_momentum", "batch_norm_eps", "renorm_warmup_steps")
    },
}

# *args and **kwargs
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

SelfLiveSettings = TypeVar("SelfLiveSettings", bound="LiveSettings")


class LiveSettings:
    """
    An algorithm of SB3's kind that refuses unknown arguments, with a hint, and changes of settings that would not act.

    A class derived from it sets ``_is_set_up`` once its parts are built.
    """

    def __new__(cls: type[SelfLiveSettings], *args: Any, **kwargs: Any) -> SelfLiveSettings:
        # before Python itself refuses the names of other algorithms, to tell their counterparts; a subclass may take any
        if not _takes_any(inspect.signature(cls.__init__).parameters):
            check_argument_names(cls, kwargs)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        # a setting of a live model acts from now on, or raises; a property of a subclass sees to that itself
        is_setting = name in settings_of(type(self))  # type: ignore[arg-type]
        is_setting &= not inspect.isdatadescriptor(getattr(type(self), name, None))
        if self.__dict__.get("_is_set_up") and is_setting:
            change(self, name, value)  # type: ignore[arg-type]
        else:
            super().__setattr__(name, value)

    @classmethod
    def load(
        cls: type[SelfLiveSettings],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> SelfLiveSettings:
        """As in SB3. :raises TypeError: (also a ValueError) if an argument is unknown, or a custom object nearly a setting"""
        check_argument_names(cls, set(kwargs) - arguments_of(super().load))  # type: ignore[misc]
        _check_custom_objects(cls, kwargs.get("custom_objects") or {})
        if isinstance(kwargs.get("policy_kwargs"), dict):
            kwargs["policy_kwargs"] = _without_sde(kwargs["policy_kwargs"])
        return super().load(path, env, *args, **kwargs)  # type: ignore[misc]

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


class ArgumentError(InputError, TypeError):
    """An argument that does not exist: Python raises TypeError, so that either can be caught."""


def arguments_of(function: Callable) -> set[str]:
    """
    :param function: anything that can be called
    :return: names of its arguments
    """
    return set(inspect.signature(function).parameters)


@functools.cache
def settings_of(algorithm: type[LiveSettings]) -> set[str]:
    """
    :param algorithm: DQS or a subclass
    :return: names of the arguments of its constructor and of those of its bases
    """
    return {
        name
        for base in algorithm.__mro__
        if "__init__" in vars(base) and (base.__module__.startswith("sb3_dqs") or base is algorithm)
        for name in inspect.signature(base.__init__).parameters  # type: ignore[misc]
    } - NOT_SETTINGS


def check_argument_names(algorithm: type[LiveSettings], names: Any) -> None:
    """
    :param algorithm: DQS or a subclass
    :param names: of arguments that are about to be passed to its constructor or to ``load``
    :raises TypeError: (also a ValueError) if it has no such argument; names its counterpart or the nearest match
    """
    parameters = inspect.signature(algorithm.__init__).parameters
    own = {name for name, parameter in parameters.items() if parameter.kind not in VARIADIC} - {"self"}
    known = {*own, *keyword_arguments(algorithm)[0]}
    for name in names:
        # a subclass may take what its signature does not tell
        is_mistaken = name in COUNTERPARTS or get_close_matches(name, known, n=1, cutoff=0.85)
        if name not in known and (is_mistaken or not _takes_any(parameters)):
            hint = hint_for(name, known)
            raise ArgumentError(f"{algorithm.__name__} has no argument {name!r}; {hint}")


def _check_custom_objects(algorithm: type[LiveSettings], names: Iterable[str]) -> None:
    # SB3 ignores names that the file has not; any attribute of a model may be among them, also private ones
    known = settings_of(algorithm)  # type: ignore[arg-type]
    for name in {name for name in names if not name.startswith("_")} - known:
        if nearest := get_close_matches(name, known, n=1, cutoff=0.85):
            raise ArgumentError(
                f"custom_objects holds {name!r}, which is no setting of {algorithm.__name__}; did you mean {nearest[0]!r}?"
            )


def keyword_arguments(constructor: type) -> tuple[dict[str, inspect.Parameter], bool]:
    """
    :param constructor: of an object that may pass arguments on to its bases, by ``**kwargs``
    :return: name -> its arguments that have a default, and those of the bases that they are passed on to; whether a class that
        is not ours takes others too
    """
    known: dict[str, inspect.Parameter] = {}
    takes_others = False
    for base, parameters in _constructors(constructor):
        has_default = {n: p for n, p in parameters.items() if p.default is not inspect.Parameter.empty}
        known = {**has_default, **known}
        takes_others |= _takes_any(parameters) and not base.__module__.startswith("sb3_dqs")
    return known, takes_others


def _default_of(algorithm: type["DQS"], name: str) -> Any:
    """Of a setting, where the algorithm or a base of it writes it down: a subclass may settle some, and take no argument."""
    constructors = [inspect.signature(base.__init__).parameters for base in algorithm.__mro__ if "__init__" in vars(base)]  # type: ignore[misc]
    return next(parameters[name].default for parameters in constructors if name in parameters)


def _constructors(constructor: type) -> Iterator[tuple[type, Mapping[str, inspect.Parameter]]]:
    """A class, and the bases that arguments are passed on to, by ``**kwargs``, each with the parameters of its constructor."""
    for base in constructor.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
            yield base, parameters
            if not _takes_any(parameters):
                return


def _accepts(constructor: type, argument: str) -> bool:
    return any(argument in parameters for _, parameters in _constructors(constructor))


def component_kwargs(model: "DQS", component: str, constructor: type, given: Iterable[str]) -> dict[str, Any]:
    """
    :param model: whose ``component_kwargs`` hold arguments of its parts
    :param component: key of ``component_kwargs``
    :param constructor: of the object that takes the arguments
    :param given: names of its arguments that are settings of the model
    :return: the arguments
    :raises ValueError: if they are no dictionary, or the object has no such argument
    """
    kwargs, where = (model.component_kwargs or {}).get(component, {}), f"component_kwargs[{component!r}]"
    if not isinstance(kwargs, dict):
        raise InputError(f"{where} must be a dictionary of arguments of {constructor.__name__}, got {kwargs!r}")
    known, takes_others = keyword_arguments(constructor)
    for name in kwargs:
        if name in given:
            raise InputError(f"{where} must not hold {name!r}, a setting of {type(model).__name__}: pass it as an argument")
        if name not in known and not takes_others:
            hint = hint_for(name, set(known) - set(given))
            raise InputError(f"{constructor.__name__} has no argument {name!r} in {where}; {hint}")
    return kwargs


def policy_settings(model: "DQS") -> dict[str, Any]:
    """
    :param model: that is about to be set up
    :return: arguments of its policy that follow from its settings
    :raises ValueError: if ``component_kwargs`` are not those of the parts
    """
    named = {"n_diffusion_steps": model.n_diffusion_steps, "n_score_samples": model.n_score_samples}
    actor_class: type[DiffusionActor] = model.policy_class.actor_class  # type: ignore[attr-defined]
    diffusion = component_kwargs(model, "diffusion", actor_class.diffusion_class, given=named)
    shape = ("features_dim", "action_dim", "net_arch", "activation_fn")
    corrector = {"n_corrector_proposals": model.n_corrector_proposals}
    return {
        **{argument: getattr(model, name) < 1 for name, (argument, _) in COPIES.items()},
        "diffusion_kwargs": {**diffusion, **named},
        "refiner_kwargs": component_kwargs(model, "refiner", actor_class.refiner_class or Refiner, given=shape),
        "n_action_candidates": model.n_action_candidates,
        "corrector_kwargs": {**component_kwargs(model, "corrector", Corrector, given=corrector), **corrector},
    }


def settle(model: "DQS") -> None:
    """
    Check all settings of a model that is about to be set up or changed, and bring them into the form in which they are used:
    whole numbers become integers, ``policy_kwargs`` a copy without what SAC wrote into them.

    :param model: with its settings as they were given
    :raises ValueError: if one cannot be used
    """
    check_action_space(model.action_space)
    _check_policy(model)
    _check_policy_kwargs(model)
    if model.device.type == "mps":
        raise InputError(
            "device must be 'cpu' or 'cuda', got 'mps', which has no double precision, as statistics of observations need it; "
            "use device='cpu', which is as fast for small networks"
        )
    if model.seed is not None:
        model.__dict__["seed"] = as_integer("seed", model.seed, 0, "None draws one")
    for name, (minimum, remedy) in INTEGERS.items():
        remedy = remedy or f"{_default_of(type(model), name)} is the default"
        model.__dict__[name] = as_integer(name, getattr(model, name), minimum, remedy)
    # SB3 keeps it under another name, where load() and a change of it do not reach
    given = model.__dict__.get("stats_window_size", model._stats_window_size)
    model.__dict__["stats_window_size"] = model._stats_window_size = as_integer("stats_window_size", given, 1, "100 is usual")
    for name in ("ep_info_buffer", "ep_success_buffer"):
        if model.__dict__.get(name) is not None:
            model.__dict__[name] = deque(model.__dict__[name], maxlen=model._stats_window_size)
    _check_numbers(model)
    _check_temperature(model)
    _check_replay_buffer_settings(model)
    if not isinstance(model.component_kwargs or {}, dict):
        keys = list(model.components)
        raise InputError(f"component_kwargs must be a dictionary, got {model.component_kwargs!r}; its keys are {keys}")
    for component in model.component_kwargs or {}:
        check_choice(f"each key of component_kwargs of {type(model).__name__}", component, model.components)


def check_action_space(space: spaces.Space) -> None:
    """
    :param space: of the actions
    :raises ValueError: (also an AssertionError) unless every coordinate can be scaled to [-1, 1]
    """
    if not isinstance(space, spaces.Box) or not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise SpaceError(f"DQS needs a bounded Box action space, got {space}; rescale or wrap the environment's")
    if not np.issubdtype(space.dtype, np.floating):
        raise SpaceError(
            f"DQS needs actions of a floating-point type, got {space}: the replay buffer would round actions, which are "
            "scaled to [-1, 1], to whole numbers; round in an action wrapper whose action space has dtype float32"
        )
    with np.errstate(over="ignore"):
        widths = space.high - space.low
    bad = np.argwhere(~np.isfinite(widths) | (widths <= 0))
    if len(bad):
        where = tuple(int(index) for index in bad[0])
        raise SpaceError(
            f"action coordinate {where} has bounds {space.low[where]} and {space.high[where]}, which cannot be scaled to "
            "[-1, 1]; leave a constant coordinate out by an action wrapper, and narrow bounds that are too far apart"
        )


def _check_policy(model: "DQS") -> None:
    name, algorithm = model.policy_class.__name__, type(model).__name__
    usual = model.policy_aliases["MlpPolicy"].actor_class  # type: ignore[attr-defined]
    actor_class = getattr(model.policy_class, "actor_class", None)
    if actor_class is None or not issubclass(actor_class.diffusion_class, usual.diffusion_class):
        raise InputError(
            f"policy must be one of {sorted(model.policy_aliases)} or a subclass, got {name}, which is not of {algorithm}; "
            "load a file with the algorithm that saved it"
        )
    if (actor_class.refiner_class is None) != (usual.refiner_class is None):
        has = "a" if usual.refiner_class is not None else "no"
        raise InputError(f"refiner_class of the actor of {name} is {actor_class.refiner_class}; {algorithm} has {has} refiner")
    for argument in sorted(BUILT_IN_POLICY_KWARGS | {"n_action_candidates"}):
        if not _accepts(model.policy_class, argument):
            raise InputError(
                f"policy {name} must take {argument!r}, which {algorithm} gives to its policies; let its constructor have "
                "**kwargs, and pass them on to the class that it derives from"
            )


def _check_policy_kwargs(model: "DQS") -> None:
    name, algorithm = model.policy_class.__name__, type(model).__name__
    if not isinstance(model.policy_kwargs, dict):
        raise InputError(
            f"policy_kwargs must be a dictionary, got {model.policy_kwargs!r}; for example dict(net_arch=[256, 256])"
        )
    model.__dict__["policy_kwargs"] = _without_sde(model.policy_kwargs)
    known, takes_others = keyword_arguments(model.policy_class)
    for key, value in model.policy_kwargs.items():
        if key in settings_of(type(model)) | BUILT_IN_POLICY_KWARGS:
            raise InputError(f"policy_kwargs must not hold {key!r}; pass it as an argument of {algorithm}")
        if key not in known and (key in COUNTERPARTS or not takes_others):
            hint = hint_for(key, set(known) - BUILT_IN_POLICY_KWARGS)
            raise InputError(f"policy_kwargs must not hold {key!r}, which {name} has not; leave it out: {hint}")
        model.policy_kwargs[key] = _checked_policy_argument(key, value)
    # a policy of one's own may have settled its critic
    usual_critic = known["critic_class"].default if "critic_class" in known else None
    _check_critic_kwargs(model.policy_kwargs.get("critic_class", usual_critic), model.policy_kwargs)


def _without_sde(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """A copy without what SB3's SAC and TQC write into the dictionary that they are given."""
    return {name: value for name, value in policy_kwargs.items() if (name, value) != ("use_sde", False)}


def _checked_policy_argument(key: str, value: Any) -> Any:
    if key in CLASSES_OF_POLICY and (not callable(value) or isinstance(value, th.nn.Module)):
        raise InputError(f"{key} in policy_kwargs must be a class, got {value!r}; for example {CLASSES_OF_POLICY[key]}")
    if key == "n_critics":
        return as_integer(key, value, 1, "two are usual")
    if key == "net_arch":
        return _checked_net_arch(value)
    if key.endswith("_kwargs") and not isinstance(value, dict | None):
        raise InputError(f"{key} in policy_kwargs must be a dictionary of arguments, got {value!r}")
    if key == "critic_betas" and not _is_pair_of_betas(value):
        raise InputError(f"critic_betas in policy_kwargs must be two numbers in [0, 1), got {value!r}; (0.9, 0.999) is Adam's")
    return value


def _is_pair_of_betas(value: Any) -> bool:
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    return is_pair and all(is_finite_number(beta) and 0 <= beta < 1 for beta in value)


def _check_critic_kwargs(critic_class: Any, policy_kwargs: dict[str, Any]) -> None:
    if not isinstance(critic_class, type):  # what arguments a function takes is its own affair
        return
    for name in policy_kwargs.get("critic_kwargs") or {}:
        if not _accepts(critic_class, name):
            known = set(keyword_arguments(critic_class)[0])
            raise InputError(
                f"critic_kwargs in policy_kwargs must not hold {name!r}, which {critic_class.__name__} has not; "
                f"{hint_for(name, known)}"
            )


def _checked_net_arch(net_arch: Any) -> Any:
    if isinstance(net_arch, dict):
        return {name: _checked_net_arch(sizes) for name, sizes in net_arch.items()}
    if net_arch is None:
        return None
    if not isinstance(net_arch, list | tuple):
        raise InputError(f"net_arch must be a list of layer sizes or dict(pi=[...], qf=[...]), got {net_arch!r}")
    return [as_integer("each size in net_arch", size, 1, "256 is usual") for size in net_arch]


def _check_numbers(model: "DQS") -> None:
    for name, remedy in (("gamma", "0.99 is usual"), ("tau", "1 is no target network")):
        value = getattr(model, name)
        if not is_finite_number(value) or not 0 <= value <= 1:
            raise InputError(f"{name} must be a number in [0, 1], got {value!r}; {hint_at_text(value)}{remedy}")
    check_share("policy_tau", model.policy_tau, "1 lets the policy follow the critic itself")
    check_share("actor_tau", model.actor_tau, "1 lets predict() ask the actor itself")
    _check_learning_rate(model.learning_rate)
    check_positive("actor_learning_rate_factor", model.actor_learning_rate_factor, "1 gives both the same rate")
    correlation_time = model.exploration_correlation_time
    if not is_finite_number(correlation_time) or correlation_time < 0:
        raise InputError(
            f"exploration_correlation_time must be a finite number of steps >= 0, got {correlation_time!r}; "
            f"{hint_at_text(correlation_time)}0 explores without correlation"
        )
    _check_train_freq(model)
    if model.action_noise is not None and not isinstance(model.action_noise, ActionNoise):
        raise InputError(f"action_noise must be an ActionNoise of SB3 or None, got {model.action_noise!r}")
    if model.optimize_memory_usage and (model.replay_buffer_kwargs or {}).get("handle_timeout_termination", True):
        raise InputError(
            "optimize_memory_usage=True cannot tell timeouts from ends; pass "
            "replay_buffer_kwargs=dict(handle_timeout_termination=False) with it, or leave it out"
        )


def _check_learning_rate(learning_rate: Any) -> None:
    # of a schedule, at both ends
    rates = [float(learning_rate(progress)) for progress in (1.0, 0.0)] if callable(learning_rate) else [learning_rate]
    for rate in rates:
        if not is_finite_number(rate) or rate < 0:
            raise InputError(
                f"learning_rate must be a finite number >= 0 or a schedule of such, got {rate!r}; {hint_at_text(rate)}"
                "a schedule maps the progress that remains, from 1 to 0, to the rate"
            )


def _check_train_freq(model: "DQS") -> None:
    train_freq: Any = model.train_freq
    frequency, *unit = train_freq if isinstance(train_freq, tuple | list) and train_freq else (train_freq,)
    frequency = as_integer("train_freq", frequency, 1, "1 trains after every step")
    if not unit:
        model.__dict__["train_freq"] = frequency
        return
    if len(unit) > 1 or str(getattr(unit[0], "value", unit[0])) not in ("step", "episode"):
        raise InputError(f"train_freq must be a number, or a pair like (2, 'episode') or (5, 'step'), got {train_freq!r}")
    model.__dict__["train_freq"] = type(train_freq)(*[frequency, *unit]) if hasattr(train_freq, "unit") else (frequency, *unit)


def _check_temperature(model: "DQS") -> None:
    if isinstance(model.temperature, str):
        hint = hint_at_text(model.temperature)
        if not model.learns_temperature:
            raise InputError(
                f"temperature must be a number > 0 or a schedule, got {model.temperature!r}; {hint}the published algorithm "
                "learns no temperature (0.05 is its constant), DQS does"
            )
        if model.temperature != "auto":
            raise InputError(
                f"temperature must be a number > 0, a schedule or 'auto', got {model.temperature!r}; {hint}'auto' learns it"
            )
    elif model.target_entropy != "auto":
        raise InputError(
            f"target_entropy={model.target_entropy!r} has no effect without the automatic temperature; leave it out (to load "
            "a model that was saved with it: load(..., target_entropy='auto'); on a live model, first "
            "model.target_entropy = 'auto'), or choose temperature='auto'"
        )


def _check_replay_buffer_settings(model: "DQS") -> None:
    if not isinstance(model.replay_buffer_kwargs, dict):
        raise InputError(f"replay_buffer_kwargs must be a dictionary, got {model.replay_buffer_kwargs!r}")
    chosen = model.replay_buffer_class
    if chosen is not None and not (isinstance(chosen, type) and issubclass(chosen, ReplayBuffer)):
        raise InputError(f"replay_buffer_class must be a ReplayBuffer of SB3 or None, got {chosen!r}")
    for name in ("n_steps", "gamma"):
        if name in model.replay_buffer_kwargs:
            raise InputError(
                f"replay_buffer_kwargs must not hold {name!r}; pass {name} as an argument of {type(model).__name__}"
            )
    if model.n_steps == 1:
        return
    if isinstance(model.observation_space, spaces.Dict):
        raise InputError(f"n_steps={model.n_steps} needs observations that are no Dict: SB3 has no such buffer; use n_steps=1")
    if chosen not in (None, ReplayBuffer) and not issubclass(chosen, NStepReplayBuffer):
        raise InputError(
            f"n_steps={model.n_steps} needs SB3's NStepReplayBuffer, and {chosen.__name__} has one-step returns; leave "
            "replay_buffer_class out, or use n_steps=1"
        )


def replay_buffer_settings(model: "DQS") -> dict[str, Any]:
    """
    What SB3 is to build the buffer from: it knows n-step returns of its own class alone, and writes into what the user gave.

    :param model: about to be set up
    :return: name -> value of settings of the model, for as long as SB3 sets it up
    """
    chosen, kwargs = model.replay_buffer_class, dict(model.replay_buffer_kwargs)
    if model.n_steps > 1 and chosen in (None, ReplayBuffer):
        chosen = NStepReplayBuffer
    if chosen is not None and issubclass(chosen, NStepReplayBuffer):
        kwargs |= {"n_steps": model.n_steps, "gamma": model.gamma}
    return {"replay_buffer_class": chosen, "replay_buffer_kwargs": kwargs, "n_steps": 1}


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
    if name not in parameters and not _takes_any(parameters):
        raise InputError(f"{name} is no setting of {algorithm}")
    if name in FIXED:
        raise InputError(f"{name} is built into the model and cannot change on a live one; {_when_made(name)}")
    previous = dict(model.__dict__)
    model.__dict__[name] = value
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
        model.cooled_share = cooled_share(model._n_updates, model.cooling_updates, steps_done=0, steps_in_run=0)
        model.thermostat.start_update(model.cooled_share)
    elif name == "batch_size":
        _check_batch_size(model)
    elif name in COPIES:
        argument, copied = COPIES[name]
        is_copied = getattr(model, name) < 1
        if getattr(model.policy, argument) != is_copied:
            with_or_without = "with" if is_copied else "without"
            raise InputError(f"{name}={getattr(model, name)} needs a model {with_or_without} {copied}; {_when_made(name)}")
    elif name == "gamma" and isinstance(model.replay_buffer, NStepReplayBuffer):
        model.replay_buffer.gamma = model.gamma
    elif name in ("temperature", "target_entropy"):
        model._setup_temperature()


def check_replay_buffer(model: "DQS") -> None:
    """
    :param model: about to learn
    :raises ValueError: if its buffer, loaded or assigned, does not fit its environments or settings
    """
    buffer = model.replay_buffer
    if buffer is None:
        return
    n_steps = buffer.n_steps if isinstance(buffer, NStepReplayBuffer) else 1
    if n_steps != model.n_steps:
        raise InputError(
            f"the replay buffer has returns of {n_steps} steps, and n_steps of the model is {model.n_steps}; continue with "
            f"load(path, n_steps={n_steps}), or without the buffer"
        )
    if buffer.n_envs != model.n_envs:
        raise InputError(
            f"the replay buffer holds transitions of {buffer.n_envs} environments, and the model has {model.n_envs}; continue "
            f"with {buffer.n_envs} environments, or without the buffer"
        )


def fit_parts(model: "DQS") -> None:
    """
    Let what was loaded, or made for other environments, be as the model is now: the discount of n-step returns, and the noise,
    which SB3 keeps for as many environments as there were first.

    :param model: about to learn, with a buffer that fits
    """
    if isinstance(model.replay_buffer, NStepReplayBuffer):  # its returns are summed as they are sampled
        model.replay_buffer.gamma = model.gamma
    noise = model.action_noise
    if isinstance(noise, VectorizedActionNoise) and noise.n_envs != model.n_envs:
        model.action_noise = VectorizedActionNoise(noise.base_noise, model.n_envs)


def check_critic(model: "DQS") -> None:
    """
    :param model: whose policy is set up, with a critic that may be of a user's class
    :raises ValueError: unless the critic returns one Q value per row and network, and can learn from batches of this size
    """
    policy, critic, n_rows = model.policy, model.policy.critic, 2
    observations, _ = policy.obs_to_tensor(some_observations(policy.observation_space, n_rows))
    with evaluating(critic), th.no_grad():
        q_values = critic(observations, th.zeros((n_rows, policy.actor.action_dim), device=policy.device))
    is_several = isinstance(q_values, tuple | list)
    shapes = [_shape(values) for values in q_values] if is_several else _shape(q_values)
    if not is_several or shapes != [(n_rows, 1)] * len(q_values) or not q_values:
        raise InputError(
            f"critic_class must return a tuple of Q values, each of shape (batch, 1), got {shapes} from "
            f"{type(critic).__name__} for a batch of {n_rows}"
        )
    _check_batch_size(model)


def some_observations(space: spaces.Space, n_rows: int) -> Any:
    """
    :param space: of observations
    :param n_rows: how many
    :return: a batch from it, without a random number: zeros, or what is nearest to them
    """
    if isinstance(space, spaces.Dict):
        return {name: some_observations(part, n_rows) for name, part in space.items()}
    zeros: Any = create_empty_array(space, n_rows, np.zeros)
    return np.clip(zeros, space.low, space.high) if isinstance(space, spaces.Box) else zeros


def _shape(values: Any) -> Any:
    return tuple(values.shape) if isinstance(values, th.Tensor) else type(values).__name__


def _check_batch_size(model: "DQS") -> None:
    # without a target network, both ends of a transition are rows of one batch
    is_normalising = any(isinstance(module, BatchRenorm) for module in model.policy.critic.modules())
    if model.batch_size == 1 and model.tau < 1 and is_normalising:
        raise InputError(
            "batch_size=1 leaves batch renormalisation nothing to average over; use at least 2, 256 is the default"
        )


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _when_made(name: str) -> str:
    if name == "policy_kwargs":
        return "pass it when the model is made"
    return f"pass it when the model is made or, for a saved model, to load(path, {name}=...)"


def hint_for(name: str, known: set[str]) -> str:
    """
    :param name: of an argument that does not exist
    :param known: names of those that do
    :return: its counterpart, the nearest match, or all names
    """
    if name in COUNTERPARTS:
        return f"its counterpart: {COUNTERPARTS[name]}"
    nearest = get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"it has {sorted(known)}"
