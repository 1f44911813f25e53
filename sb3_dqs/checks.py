"""Is a setting usable? Each check raises an :class:`InputError` that names the argument, the value found and the remedy."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used, or has made training diverge; the message names it and the remedy."""


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """
    :param name: name of the argument
    :param value: value found
    :param choices: allowed values
    :raises ValueError: if ``value`` is none of them; names the nearest match
    """
    choices = list(choices)
    if value in choices:
        return
    nearest = get_close_matches(str(value), choices, n=1, cutoff=0.3)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise InputError(f"{name} must be one of {choices}, got {value!r}{hint}")


def check_integer(name: str, value: Any, minimum: int, remedy: str) -> None:
    """
    :param name: name of the argument
    :param value: value found
    :param minimum: smallest allowed value
    :param remedy: what to do instead
    :raises ValueError: if ``value`` is not an integer >= ``minimum``
    """
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < minimum:
        raise InputError(f"{name} must be an integer >= {minimum}, got {value!r}; {remedy}")


def check_positive(name: str, value: Any, remedy: str) -> None:
    """
    :param name: name of the argument
    :param value: value found
    :param remedy: what to do instead
    :raises ValueError: if ``value`` is not a finite number > 0
    """
    if not is_finite_number(value) or value <= 0:
        raise InputError(f"{name} must be a finite number > 0, got {value!r}; {remedy}")


def check_sigma_range(sigma_min: Any, sigma_max: Any) -> None:
    """
    :param sigma_min: smallest noise level
    :param sigma_max: largest noise level
    :raises ValueError: unless 0 < sigma_min < sigma_max, both finite
    """
    check_positive("sigma_min", sigma_min, "it is the smallest noise level, in units of half the action box")
    check_positive("sigma_max", sigma_max, "it is the largest noise level, in units of half the action box")
    if sigma_min >= sigma_max:
        raise InputError(f"sigma_min must be < sigma_max, got {sigma_min} >= {sigma_max}; swap or spread them")


def is_finite_number(value: Any) -> bool:
    """
    :param value: anything
    :return: whether it is a real number, neither NaN nor infinite
    """
    try:
        return not isinstance(value, (str, bool)) and math.isfinite(value)
    except TypeError:
        return False
