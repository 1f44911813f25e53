"""Is a setting usable? Each check raises an :class:`InputError` that names the argument, the value found and the remedy."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used, or has made training diverge; the message names it and the remedy."""


class SpaceError(InputError, AssertionError):
    """A space that cannot be learned with: SB3 asserts these, so that its users catch either."""


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


def as_integer(name: str, value: Any, minimum: int, remedy: str) -> int:
    """
    Take integers of any library, and floats that are whole numbers, as settings files have them (``1e4``).

    :param name: name of the argument
    :param value: value found
    :param minimum: smallest allowed value
    :param remedy: what to do instead
    :return: the value as an ``int``
    :raises ValueError: if ``value`` is not a whole number >= ``minimum``
    """
    is_whole = isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value) and float(value).is_integer())
    if isinstance(value, bool) or not is_whole or value < minimum:
        raise InputError(f"{name} must be an integer >= {minimum}, got {value!r}; {hint_at_text(value)}{remedy}")
    return int(value)


def check_positive(name: str, value: Any, remedy: str) -> None:
    """
    :param name: name of the argument
    :param value: value found
    :param remedy: what to do instead
    :raises ValueError: if ``value`` is not a finite number > 0
    """
    if not is_finite_number(value) or value <= 0:
        raise InputError(f"{name} must be a finite number > 0, got {value!r}; {hint_at_text(value)}{remedy}")


def check_not_negative(name: str, value: Any, remedy: str) -> None:
    """
    :param name: name of the argument
    :param value: value found
    :param remedy: what to do instead
    :raises ValueError: if ``value`` is not a finite number >= 0
    """
    if not is_finite_number(value) or value < 0:
        raise InputError(f"{name} must be a finite number >= 0, got {value!r}; {hint_at_text(value)}{remedy}")


def check_share(name: str, value: Any, remedy: str) -> None:
    """
    :param name: name of the argument
    :param value: value found
    :param remedy: what to do instead
    :raises ValueError: if ``value`` is not a number in (0, 1]
    """
    if not is_finite_number(value) or not 0 < value <= 1:
        raise InputError(f"{name} must be a number in (0, 1], got {value!r}; {hint_at_text(value)}{remedy}")


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
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def hint_at_text(value: Any) -> str:
    """
    Hint for a number given as text: YAML reads ``1e-3``, which has no decimal point, as a string.

    :param value: found
    :return: a remedy that ends with a semicolon, or nothing
    """
    try:
        return f"this is text, write {float(value)!r} without quotes; " if isinstance(value, str) else ""
    except ValueError:
        return ""
