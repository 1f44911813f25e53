"""Are the exact draws of a law those of its density?"""

import pytest
import torch as th

from benchmarks.many_dimensions import LAWS, weight_of_the_larger_peak
from sb3_dqs.diffusion.corrector import Corrector

N_DRAWS = 20_000


@pytest.mark.parametrize("guided_share", [0.0, 0.5])
@pytest.mark.parametrize(
    ("name", "action_dim"), [("two peaks", 1), ("two peaks", 3), ("linear", 2), ("bananas", 2), ("bananas", 5)]
)
def test_rounds_that_leave_the_law_as_it_is_leave_its_draws_as_they_are(name, action_dim, guided_share):
    th.manual_seed(0)
    law = LAWS[name]
    draws = law.draw(N_DRAWS, action_dim)
    assert draws.shape == (N_DRAWS, action_dim)
    assert draws.abs().max() <= 1
    moved = Corrector(8, [0.5, 0.3, 0.1], guided_share)(law.log_density, draws, 1.0)
    before, after = law.log_density(draws), law.log_density(moved)
    # of the difference of two means that are not independent
    assert abs(before.mean() - after.mean()) < 4 * (before.var() + after.var()).sqrt() / N_DRAWS**0.5
    assert (draws.mean(dim=0) - moved.mean(dim=0)).abs().max() < 4 * 2**0.5 * draws.std(dim=0).max() / N_DRAWS**0.5


@pytest.mark.parametrize("action_dim", [1, 6])
def test_larger_of_the_two_peaks_weighs_seven_tenths(action_dim):
    th.manual_seed(0)
    draws = LAWS["two peaks"].draw(N_DRAWS, action_dim)
    assert weight_of_the_larger_peak(draws) == pytest.approx(0.7, abs=0.015)
