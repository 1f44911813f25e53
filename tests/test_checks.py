"""Which values does each check take, and what does its error tell?"""

import math
from decimal import Decimal

import numpy as np
import pytest

from sb3_dqs.checks import InputError, SpaceError, as_integer, check_choice, check_positive, check_share, check_sigma_range


@pytest.mark.parametrize("value", [3, 3.0, np.int8(3), np.uint64(3), np.float16(3.0)], ids=repr)
def test_whole_numbers_of_any_type_become_integers(value):
    taken = as_integer("n", value, 3, "1 is usual")
    assert taken == 3
    assert type(taken) is int


@pytest.mark.parametrize("value", [2, 3.5, math.nan, math.inf, True, np.True_, None, "3", [3], 3 + 0j, Decimal(3)], ids=repr)
def test_what_is_no_whole_number_or_too_small_is_refused(value):
    with pytest.raises(InputError, match=r"^n must be an integer >= 3, got .*1 is usual$"):
        as_integer("n", value, 3, "1 is usual")


@pytest.mark.parametrize("check", [check_positive, check_share])
def test_real_numbers_of_any_type_are_taken(check):
    for value in (1, 0.5, np.float32(0.5), np.int64(1)):
        check("x", value, "remedy")


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, True, None, "0.5", [0.5]], ids=repr)
@pytest.mark.parametrize(
    ("check", "range_"), [(check_positive, "a finite number > 0"), (check_share, r"a number in \(0, 1\]")]
)
def test_what_is_out_of_range_is_refused(check, range_, value):
    with pytest.raises(InputError, match=f"^x must be {range_}, got .*remedy$"):
        check("x", value, "remedy")


def test_a_share_is_at_most_one():
    with pytest.raises(InputError, match=r"got 1\.5"):
        check_share("x", 1.5, "remedy")


@pytest.mark.parametrize("check", [lambda value: as_integer("x", value, 1, ""), lambda value: check_positive("x", value, "")])
def test_a_number_that_is_text_is_told_from_other_text(check):
    with pytest.raises(InputError, match=r"got '1e-3'; this is text, write 0\.001 without quotes"):
        check("1e-3")
    with pytest.raises(InputError) as caught:
        check("auto")
    assert "quotes" not in str(caught.value)


def test_a_wrong_choice_names_the_nearest():
    check_choice("kind", "stein", ["stein", "value"])
    with pytest.raises(InputError, match=r"kind must be one of \['stein', 'value'\], got 'steen'; did you mean 'stein'\?"):
        check_choice("kind", "steen", ["stein", "value"])
    with pytest.raises(InputError, match=r"got 3$"):
        check_choice("kind", 3, ["stein", "value"])


@pytest.mark.parametrize(
    ("sigmas", "name"), [((0.0, 1.0), "sigma_min"), ((0.1, math.inf), "sigma_max"), ((1.0, 1.0), "sigma_min")]
)
def test_noise_levels_are_positive_and_in_order(sigmas, name):
    check_sigma_range(0.1, 1.0)
    with pytest.raises(InputError, match=f"^{name} must be"):
        check_sigma_range(*sigmas)


def test_errors_can_be_caught_as_those_of_sb3():
    assert issubclass(InputError, ValueError)
    assert issubclass(SpaceError, InputError)
    assert issubclass(SpaceError, AssertionError)
