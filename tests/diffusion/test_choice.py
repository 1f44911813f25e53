"""Is what is chosen by weights a draw of the law, and are the weights those of the mixture?"""

import math

import numpy as np
import pytest
import torch as th

from sb3_dqs.diffusion.choice import Candidates, choose, choose_by_law
from sb3_dqs.diffusion.reflection import reflect
from tests import truth

N_SAMPLES = 5_000
N_BINS = 20
TEMPERATURE = 0.5


def candidates_of(n_candidates, places, std, action_dim=1):
    """Draws around means at places that a row chooses at random, as a sampler that knows modes, but not their weights."""
    means = places[th.randint(len(places), (n_candidates, N_SAMPLES))].unsqueeze(-1).expand(-1, -1, action_dim)
    stds = th.full_like(means, std)
    return Candidates(reflect(means + stds * th.randn_like(means)), means, stds)


def total_variation(actions, log_density):
    counts = np.histogram(actions.numpy(), bins=N_BINS, range=(-1, 1))[0]
    exact = np.histogram(truth.GRID, bins=N_BINS, range=(-1, 1), weights=truth.grid_density(log_density))[0]
    return np.abs(counts / counts.sum() - exact / exact.sum()).sum() / 2


@pytest.mark.parametrize("law", [truth.gaussian, truth.two_peaks, truth.linear])
def test_many_candidates_are_chosen_by_the_law_whatever_they_are_drawn_from(law):
    th.manual_seed(0)
    candidates = candidates_of(32, th.linspace(-1, 1, 9), 0.25)
    chosen = choose_by_law(candidates, lambda a: TEMPERATURE * law(a).squeeze(-1), TEMPERATURE, th.rand(N_SAMPLES))
    # that of exact draws is about 0.4 sqrt(N_BINS / N_SAMPLES) = 0.025
    assert total_variation(chosen, law) < 0.05
    assert total_variation(candidates.actions[0], law) > 0.1


def test_modes_get_their_weights_from_few_candidates_that_know_where_they_lie():
    def law(actions):
        right, left = (-((actions - peak) / 0.1).square() / 2 for peak in (0.6, -0.6))
        return th.logaddexp(right + math.log(0.8), left + math.log(0.2))

    th.manual_seed(0)
    q_fn = lambda actions: TEMPERATURE * law(actions).squeeze(-1)  # noqa: E731
    # nine of ten candidates lie at the smaller peak
    places = th.tensor([-0.6] * 9 + [0.6])
    shares = []
    for n_candidates in (1, 8, 40):
        candidates = candidates_of(n_candidates, places, 0.1)
        chosen = choose_by_law(candidates, q_fn, TEMPERATURE, th.rand(N_SAMPLES))
        shares.append((chosen > 0).double().mean().item())
    # where none of eight lies at the larger peak, in 0.9^8 = 43 % of the rows, it cannot be chosen
    assert shares[0] == pytest.approx(0.1, abs=0.02)
    assert shares[1] == pytest.approx(0.8 * (1 - 0.9**8), abs=0.06)
    assert shares[2] == pytest.approx(0.8, abs=0.02)


def test_density_of_the_mixture_is_that_of_a_histogram_walls_included():
    th.manual_seed(0)
    # one set of Gaussians for all rows: at a wall, in the middle
    means = th.tensor([1.0, 0.9, 0.0]).view(3, 1, 1).expand(3, 200_000, 1)
    stds = th.tensor([0.2, 0.1, 0.3]).view(3, 1, 1).expand(3, 200_000, 1)
    candidates = Candidates(reflect(means + stds * th.randn_like(means)), means, stds)
    counts, edges = np.histogram(candidates.actions.numpy(), bins=100, range=(-1, 1))
    found = counts / counts.sum() / 0.02
    middles = th.as_tensor((edges[1:] + edges[:-1]) / 2, dtype=th.float32).view(1, 100, 1).expand(3, 100, 1)
    log_density = Candidates(middles, means[:, :100], stds[:, :100]).mixture_log_density()[0]
    expected = log_density.exp() / math.sqrt(2 * math.pi)
    assert found == pytest.approx(expected.numpy(), abs=0.03)


def test_choice_follows_the_weights_and_takes_the_last_at_the_end():
    candidates = th.arange(3.0).view(3, 1, 1).expand(3, 30_000, 1)
    log_weights = th.tensor([0.2, 0.5, 0.3]).log().view(3, 1).expand(3, 30_000) + 100.0
    th.manual_seed(0)
    chosen = choose(candidates, log_weights, th.rand(30_000)).squeeze(1)
    assert th.bincount(chosen.long()).div(30_000).tolist() == pytest.approx([0.2, 0.5, 0.3], abs=0.01)
    assert choose(candidates[:, :2], log_weights[:, :2], th.tensor([0.0, 1.0])).flatten().tolist() == [0.0, 2.0]


def test_what_has_no_weight_is_not_chosen_even_by_a_draw_of_zero():
    candidates = th.arange(3.0).view(3, 1, 1)
    assert choose(candidates, th.tensor([[-math.inf], [0.0], [0.0]]), th.zeros(1)).item() == 1.0
