"""Are the exact draws of a law those of its density?"""

import pytest
import torch as th

from benchmarks.many_dimensions import LAWS, samples_by_way, two_peaks, weight_of_the_larger_peak
from benchmarks.static_targets import model_of_law
from sb3_dqs import DQS
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


def test_ways_to_sample_are_named_priced_and_follow_the_law_as_far_as_they_ask_for_it():
    model = model_of_law(DQS, two_peaks, seed=0, action_dim=1)
    with th.no_grad():
        ways = {name: (cost, actions) for name, cost, actions in samples_by_way(model)}
    costs = {name: cost for name, (cost, _) in ways.items()}
    assert (costs["diffusion, as in training"], costs["single draw"], costs["chosen among 8"]) == (0, 0, 8)
    # 8 of the choice, then the action and its proposals, and three for a gradient
    assert costs["then 8 proposals, 0.3"] == 8 + 9
    assert costs["then 8 proposals, 4 of them uphill, 0.3, 0.1"] == 8 + 2 * (9 + 3)
    # an untrained actor is nearly uniform, and finds two equally wide peaks by weights alone
    weights = {name: weight_of_the_larger_peak(actions) for name, (_, actions) in ways.items()}
    assert weights["diffusion, as in training"] == pytest.approx(0.5, abs=0.1)
    assert weights["chosen among 32"] == pytest.approx(0.7, abs=0.04)
    assert weights["then 8 proposals, 0.3"] == pytest.approx(0.7, abs=0.04)
