"""Are the settings usable? Errors name the value and the remedy."""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from sb3_contrib.common.torch_layers import BatchRenorm
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import TrainFreq

from sb3_dqs.checks import (
    InputError,
    SpaceError,
    as_integer,
    check_choice,
    check_not_negative,
    check_positive,
    check_share,
    hint_at_text,
    is_finite_number,
)
from sb3_dqs.critics import ADAMS, evaluating
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.diffusion.refiner import Refiner
from sb3_dqs.replay import check_replay_buffer_settings
from sb3_dqs.signatures import COUNTERPARTS, accepts, default_of, hint_for, keyword_arguments, settings_of
from sb3_dqs.temperature import AutomaticTemperature, ScheduledTemperature

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

# Arguments of the critic that its policy passes
OF_ALL_CRITICS = {"net_arch", "activation_fn", "normalize_images", "n_critics", "share_features_extractor"}

# Arguments of a temperature that one which is set beforehand has not
ONLY_IF_AUTOMATIC = set(keyword_arguments(AutomaticTemperature)[0]) - set(keyword_arguments(ScheduledTemperature)[0])

# Arguments of the policy that are classes, and an example of each
CLASSES_OF_POLICY = {
    "activation_fn": "torch.nn.ReLU",
    "critic_class": "sb3_dqs.critics.BatchRenormCritic",
    "features_extractor_class": "stable_baselines3.common.torch_layers.FlattenExtractor",
    "optimizer_class": "torch.optim.Adam",
}


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
    n_proposals = {"n_corrector_proposals": model.n_corrector_proposals}
    corrector = component_kwargs(model, "corrector", Corrector, given=n_proposals)
    if corrector and not model.n_corrector_proposals:
        raise InputError(
            f"component_kwargs['corrector']={corrector!r} has no effect with n_corrector_proposals=0; leave it out (to load a "
            "model that was saved with it: load(..., component_kwargs=None), or without it), or choose more than 0 proposals, "
            f"{default_of(type(model), 'n_corrector_proposals')} is the default"
        )
    return {
        **{argument: getattr(model, name) < 1 for name, (argument, _) in COPIES.items()},
        "diffusion_kwargs": {**diffusion, **named},
        "refiner_kwargs": component_kwargs(model, "refiner", actor_class.refiner_class or Refiner, given=shape),
        "n_action_candidates": model.n_action_candidates,
        "corrector_kwargs": {**corrector, **n_proposals},
    }


def settle(model: "DQS") -> None:
    """
    Check all settings of a model that is about to be set up or changed, and bring them into the form in which they are used:
    whole numbers become integers, ``policy_kwargs`` a copy without what SAC wrote into them.

    :param model: with its settings as they were given
    :raises ValueError: if one cannot be used
    """
    if getattr(model, "action_space", None) is None:
        raise InputError("env must be an environment or the id of one, got None; the model takes its spaces from it")
    check_action_space(model.action_space)
    _check_observation_space(model.observation_space)
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
        remedy = remedy or f"{default_of(type(model), name)} is the default"
        model.__dict__[name] = as_integer(name, getattr(model, name), minimum, remedy)
    # SB3 keeps it under another name, where load() and a change of it do not reach
    given = model.__dict__.get("stats_window_size", model._stats_window_size)
    model.__dict__["stats_window_size"] = model._stats_window_size = as_integer("stats_window_size", given, 1, "100 is usual")
    for name in ("ep_info_buffer", "ep_success_buffer"):
        if model.__dict__.get(name) is not None:
            model.__dict__[name] = deque(model.__dict__[name], maxlen=model._stats_window_size)
    _check_numbers(model)
    _check_temperature(model)
    check_replay_buffer_settings(model)
    if not isinstance(model.component_kwargs, dict | None):
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
    if not space.low.size:
        raise SpaceError(f"DQS needs actions of at least one coordinate, got {space}; there is nothing to learn")
    with np.errstate(over="ignore"):
        widths = space.high - space.low
    bad = np.argwhere(~np.isfinite(widths) | (widths <= 0))
    if len(bad):
        where = tuple(int(index) for index in bad[0])
        raise SpaceError(
            f"action coordinate {where} has bounds {space.low[where]} and {space.high[where]}, which cannot be scaled to "
            "[-1, 1]; leave a constant coordinate out by an action wrapper, and narrow bounds that are too far apart"
        )


def _check_observation_space(space: spaces.Space) -> None:
    for part in space.spaces.values() if isinstance(space, spaces.Dict) else [space]:
        if np.any(getattr(part, "start", 0)):
            raise SpaceError(
                f"DQS needs discrete observations that are counted from 0, got {part}: SB3 encodes them so; subtract the "
                "start in an observation wrapper"
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
    is_for_dicts = model.policy_class is model.policy_aliases.get("MultiInputPolicy")
    if is_for_dicts and not isinstance(model.observation_space, spaces.Dict):
        raise InputError(
            f"policy MultiInputPolicy is for observations that are dictionaries, got {model.observation_space}; use "
            "MlpPolicy, or CnnPolicy for images"
        )
    for argument in sorted(BUILT_IN_POLICY_KWARGS | {"n_action_candidates"}):
        if not accepts(model.policy_class, argument):
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
    model.__dict__["policy_kwargs"] = as_kept(model.policy_kwargs)
    known, takes_others = keyword_arguments(model.policy_class)
    for key, value in model.policy_kwargs.items():
        if key in settings_of(type(model)) | BUILT_IN_POLICY_KWARGS:
            raise InputError(f"policy_kwargs must not hold {key!r}; pass it as an argument of {algorithm}")
        if key not in known and (key in COUNTERPARTS or not takes_others):
            hint = hint_for(key, set(known) - BUILT_IN_POLICY_KWARGS)
            raise InputError(f"policy_kwargs must not hold {key!r}, which {name} has not; leave it out: {hint}")
        model.policy_kwargs[key] = _checked_policy_argument(key, value)
    # a policy of one's own may have settled its critic and its optimizer
    usual: dict[str, Any] = {name: known[name].default for name in ("critic_class", "optimizer_class") if name in known}
    chosen = {**usual, **model.policy_kwargs}
    optimizer = chosen.get("optimizer_class", ADAMS[0])
    if "critic_betas" in model.policy_kwargs and "betas" in (model.policy_kwargs.get("optimizer_kwargs") or {}):
        raise InputError("critic_betas in policy_kwargs have no effect with betas in optimizer_kwargs; leave out either")
    if "critic_betas" in model.policy_kwargs and optimizer not in ADAMS:
        raise InputError(
            "critic_betas in policy_kwargs are for torch's Adam and AdamW, and optimizer_class is "
            f"{getattr(optimizer, '__name__', optimizer)}; leave them out, or put betas that hold for actor and critic into "
            "optimizer_kwargs"
        )
    _check_critic_kwargs(chosen.get("critic_class"), model.policy_kwargs)


def as_kept(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """A copy as a model keeps it: without what SB3's SAC and TQC write into it, and with lists of sizes."""
    kept = {name: value for name, value in policy_kwargs.items() if (name, value) != ("use_sde", False)}
    return kept if "net_arch" not in kept else {**kept, "net_arch": _checked_net_arch(kept["net_arch"])}


def _checked_policy_argument(key: str, value: Any) -> Any:
    if key in CLASSES_OF_POLICY and (not callable(value) or isinstance(value, th.nn.Module)):
        raise InputError(f"{key} in policy_kwargs must be a class, got {value!r}; for example {CLASSES_OF_POLICY[key]}")
    if key == "n_critics":
        return as_integer(key, value, 1, "two are usual")
    if key.endswith("_kwargs") and not isinstance(value, dict | None):
        raise InputError(f"{key} in policy_kwargs must be a dictionary of arguments, got {value!r}")
    if key == "optimizer_kwargs" and "lr" in (value or {}):
        raise InputError("optimizer_kwargs in policy_kwargs must not hold 'lr'; pass learning_rate as an argument")
    if key == "critic_betas" and not _is_pair_of_betas(value):
        raise InputError(f"critic_betas in policy_kwargs must be two numbers in [0, 1), got {value!r}; (0.9, 0.999) is Adam's")
    return value


def _is_pair_of_betas(value: Any) -> bool:
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    return is_pair and all(is_finite_number(beta) and 0 <= beta < 1 for beta in value)


def _check_critic_kwargs(critic_class: Any, policy_kwargs: dict[str, Any]) -> None:
    if taken := sorted(set(policy_kwargs.get("critic_kwargs") or {}) & OF_ALL_CRITICS):
        raise InputError(
            f"critic_kwargs in policy_kwargs must not hold {taken}, which the policy gives to its critic; pass them in "
            "policy_kwargs, and sizes of layers as net_arch=dict(pi=[...], qf=[...])"
        )
    if not isinstance(critic_class, type):  # what arguments a function takes is its own affair
        return
    for name in policy_kwargs.get("critic_kwargs") or {}:
        if not accepts(critic_class, name):
            known = set(keyword_arguments(critic_class)[0])
            raise InputError(
                f"critic_kwargs in policy_kwargs must not hold {name!r}, which {critic_class.__name__} has not; "
                f"{hint_for(name, known)}"
            )


def _checked_net_arch(net_arch: Any) -> Any:
    if isinstance(net_arch, dict):
        if set(net_arch) != {"pi", "qf"}:
            raise InputError(f"net_arch must be a list of layer sizes or dict(pi=[...], qf=[...]), got {net_arch!r}")
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
    schedule = model.learning_rate
    # at both ends; between them it is checked as it is asked
    for rate in [float(schedule(1.0)), float(schedule(0.0))] if callable(schedule) else [schedule]:
        check_learning_rate(rate)
    check_positive("actor_learning_rate_factor", model.actor_learning_rate_factor, "1 gives both the same rate")
    check_not_negative(
        "exploration_correlation_time", model.exploration_correlation_time, "it is in steps; 0 explores without correlation"
    )
    _check_train_freq(model)
    _check_action_noise(model)


def _check_action_noise(model: "DQS") -> None:
    noise = model.action_noise
    if noise is not None and not isinstance(noise, ActionNoise):
        raise InputError(f"action_noise must be an ActionNoise of SB3 or None, got {noise!r}")
    noise = getattr(noise, "base_noise", noise)
    shape: tuple[int, ...] = model.action_space.shape  # type: ignore[assignment]
    for name in ("_mu", "_sigma"):  # of both kinds that SB3 has; others are met as they are asked
        size = np.shape(getattr(noise, name, 0.0))
        if len(size) > len(shape) or any(n not in (1, m) for n, m in zip(size[::-1], shape[::-1], strict=False)):
            raise InputError(
                f"action_noise is of shape {size}, got {noise!r}, and actions are of shape {shape}; give mean and sigma one "
                "number per action dimension"
            )


def check_learning_rate(rate: Any) -> None:
    """
    :param rate: of the critic, at one point of the training
    :raises ValueError: if it is not a finite number >= 0
    """
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
    counted = str(getattr(unit[0], "value", unit[0]))
    if len(unit) > 1 or counted not in ("step", "episode"):
        raise InputError(f"train_freq must be a number, or a pair like (2, 'episode') or (5, 'step'), got {train_freq!r}")
    if counted == "episode" and model.n_envs > 1:
        raise InputError(
            f"train_freq={train_freq!r} counts episodes of a single environment, and there are {model.n_envs}; use (n, 'step')"
        )
    is_named = isinstance(train_freq, TrainFreq)
    model.__dict__["train_freq"] = train_freq._replace(frequency=frequency) if is_named else (frequency, *unit)


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
    elif model.learns_temperature and (names := sorted(set(_of_temperature(model.component_kwargs)) & ONLY_IF_AUTOMATIC)):
        raise InputError(
            f"{names} in component_kwargs['temperature'] have no effect without the automatic temperature; leave them out (to "
            "load a model that was saved with them: load(..., component_kwargs=None), or without these), or choose "
            "temperature='auto'"
        )


def for_a_temperature_that_is_set(kwargs: Any) -> Any:
    """
    :param kwargs: ``component_kwargs`` of a model
    :return: the same without what the automatic temperature alone has
    """
    of_temperature = _of_temperature(kwargs)
    if not set(of_temperature) & ONLY_IF_AUTOMATIC:
        return kwargs
    return {**kwargs, "temperature": {name: of_temperature[name] for name in set(of_temperature) - ONLY_IF_AUTOMATIC}}


def _of_temperature(kwargs: Any) -> dict[str, Any]:
    of_temperature = kwargs.get("temperature") if isinstance(kwargs, dict) else None
    return of_temperature if isinstance(of_temperature, dict) else {}


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
    check_batch_size(model)


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


def check_batch_size(model: "DQS") -> None:
    """
    :param model: set up
    :raises ValueError: if its critic cannot learn from batches of this size
    """
    # without a target network, both ends of a transition are rows of one batch
    is_normalising = any(isinstance(module, BatchRenorm) for module in model.policy.critic.modules())
    if model.batch_size == 1 and model.tau < 1 and is_normalising:
        raise InputError(
            "batch_size=1 leaves batch renormalisation nothing to average over; use at least 2, 256 is the default"
        )
