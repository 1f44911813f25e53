"""Which arguments do algorithms and their parts take, those of their bases included? Mistaken names get a hint."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from sb3_dqs.checks import InputError

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


class ArgumentError(InputError, TypeError):
    """An argument that does not exist: Python raises TypeError, so that either can be caught."""


def arguments_of(function: Callable) -> set[str]:
    """
    :param function: anything that can be called
    :return: names of its arguments
    """
    return set(inspect.signature(function).parameters)


@functools.cache
def settings_of(algorithm: type) -> set[str]:
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
        takes_others |= takes_any(parameters) and not base.__module__.startswith("sb3_dqs")
    return known, takes_others


def check_argument_names(algorithm: type, names: Iterable[str]) -> None:
    """
    :param algorithm: DQS or a subclass
    :param names: of arguments that are about to be passed to its constructor or to ``load``
    :raises TypeError: (also a ValueError) if it has no such argument; names its counterpart or the nearest match
    """
    parameters = inspect.signature(algorithm.__init__).parameters  # type: ignore[misc]
    own = {name for name, parameter in parameters.items() if parameter.kind not in VARIADIC} - {"self"}
    known = {*own, *keyword_arguments(algorithm)[0]}
    for name in names:
        # a subclass may take what its signature does not tell
        is_mistaken = name in COUNTERPARTS or get_close_matches(name, known, n=1, cutoff=0.85)
        if name not in known and (is_mistaken or not takes_any(parameters)):
            hint = hint_for(name, {known_name for known_name in known if not known_name.startswith("_")})
            if name not in COUNTERPARTS and name in settings_of(algorithm):
                hint = "it settles this setting of its base itself, leave it out"
            raise ArgumentError(f"{algorithm.__name__} has no argument {name!r}; {hint}")


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


def default_of(algorithm: type, name: str) -> Any:
    """Of a setting, where the algorithm or a base of it writes it down: a subclass may settle some, and take no argument."""
    constructors = [inspect.signature(base.__init__).parameters for base in algorithm.__mro__ if "__init__" in vars(base)]  # type: ignore[misc]
    return next(parameters[name].default for parameters in constructors if name in parameters)


def accepts(constructor: type, argument: str) -> bool:
    """Whether a constructor, or one of a base that its arguments are passed on to, has an argument."""
    return any(argument in parameters for _, parameters in _constructors(constructor))


def _constructors(constructor: type) -> Iterator[tuple[type, Mapping[str, inspect.Parameter]]]:
    """A class, and the bases that arguments are passed on to, by ``**kwargs``, each with the parameters of its constructor."""
    for base in constructor.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
            yield base, parameters
            if not takes_any(parameters):
                return


def takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a signature has ``**kwargs``."""
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
