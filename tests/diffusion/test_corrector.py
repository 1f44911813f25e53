"""Does a round of the corrector leave the law as it is, and does it lead to it from anywhere?"""

import numpy as np
import pytest
import torch as th

from sb3_dqs.diffusion.corrector import Corrector, CorrectorNoise, guided_particle_gibbs, particle_gibbs
from sb3_dqs.diffusion.reflection import reflect, reflected_normal_log_density
from tests import truth

N_SAMPLES = 50_000
N_BINS = 20
# of the histogram of so many exact draws, the mean total variation is about 0.4 sqrt(N_BINS / N_SAMPLES) = 0.008
SAMPLING_FLOOR = 0.015
TEMPERATURE = 0.5


def histogram(actions):
    counts, _ = np.histogram(actions.numpy(), bins=N_BINS, range=(-1, 1))
    return counts / counts.sum()


def exact_histogram(log_density):
    density = truth.grid_density(log_density)
    cdf = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(truth.GRID))])
    return np.diff(np.interp(np.linspace(-1, 1, N_BINS + 1), truth.GRID, cdf / cdf[-1]))


def total_variation(actions, log_density):
    """Largest over the coordinates."""
    expected = exact_histogram(log_density)
    return max(np.abs(histogram(column) - expected).sum() / 2 for column in actions.T)


@pytest.mark.parametrize("log_density", [truth.two_peaks, truth.linear, truth.corner])
@pytest.mark.parametrize("guided_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("sigma", "n_proposals", "action_dim"), [(0.3, 2, 1), (0.3, 4, 1), (1.0, 8, 1), (0.2, 3, 2)])
def test_a_round_leaves_the_law_as_it_is(log_density, sigma, n_proposals, action_dim, guided_share):
    th.manual_seed(0)
    actions = truth.sample(log_density, N_SAMPLES, action_dim, np.random.default_rng(0))
    q_fn = truth.product_q_fn(log_density, TEMPERATURE)
    moved = Corrector(n_proposals, [sigma], guided_share)(q_fn, actions, TEMPERATURE)
    assert (moved.abs() <= 1).all()
    assert (moved != actions).any(dim=1).double().mean() > 0.1
    assert total_variation(moved, log_density) < SAMPLING_FLOOR
    # and pairs may be read in either direction of time, which a histogram alone would not notice
    asymmetry = (actions**2 * moved - actions * moved**2).mean(dim=0) / (actions**2 * moved).std(dim=0)
    assert asymmetry.abs().max() < 5 / N_SAMPLES**0.5


@pytest.mark.parametrize("log_density", [truth.gaussian, truth.corner])
def test_rounds_lead_to_the_law_from_a_wrong_one(log_density):
    th.manual_seed(0)
    actions = th.full((N_SAMPLES, 1), -0.9, dtype=th.float64)
    q_fn = truth.product_q_fn(log_density, TEMPERATURE)
    distances = []
    for n_rounds in (1, 2, 8):
        distances.append(total_variation(Corrector(8, [0.5] * n_rounds)(q_fn, actions, TEMPERATURE), log_density))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < SAMPLING_FLOOR


@pytest.mark.parametrize(
    ("point", "image"),
    # there and back through the box of width 2
    [(0.3, 0.3), (1.0, 1.0), (-1.0, -1.0), (1.2, 0.8), (-1.5, -0.5), (2.9, -0.9), (3.5, -0.5), (5.1, 0.9), (-7.25, 0.75)],
)
def test_reflection(point, image):
    assert reflect(th.tensor(point, dtype=th.float64)).item() == pytest.approx(image)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("centre", [-1.0, 0.3, 0.98])
def test_density_of_reflected_noise_is_that_of_its_draws(centre, sigma):
    points = th.linspace(-1, 1, 4_001, dtype=th.float64)[:, None]
    density = reflected_normal_log_density(points, th.tensor([centre], dtype=th.float64), sigma).exp() / (2 * np.pi) ** 0.5
    assert th.trapezoid(density, points[:, 0]).item() == pytest.approx(1, abs=1e-3)
    draws = reflect(centre + sigma * th.randn(N_SAMPLES, generator=th.Generator().manual_seed(0)))
    cdf = th.cumulative_trapezoid(density, points[:, 0])
    for quantile in (0.1, 0.5, 0.9):
        at = points[1:][(cdf - quantile).abs().argmin()]
        assert (draws < at).double().mean().item() == pytest.approx(quantile, abs=0.01)


def test_density_is_that_of_all_coordinates_whatever_the_number_of_points():
    centres, points = 2 * th.rand(4, 3) - 1, 2 * th.rand(5, 4, 3) - 1
    together = reflected_normal_log_density(points, centres, 0.3)
    one_by_one = sum(reflected_normal_log_density(points[..., [i]], centres[:, [i]], 0.3) for i in range(3))
    assert th.allclose(together, one_by_one, atol=1e-4)
    assert th.allclose(together[2], reflected_normal_log_density(points[2], centres, 0.3))


@pytest.mark.parametrize("guided_share", [0.0, 1.0])
def test_one_proposal_leaves_the_law_as_it_is(guided_share):
    test_a_round_leaves_the_law_as_it_is(truth.two_peaks, 0.3, 1, 1, guided_share)


def test_guided_proposals_lie_uphill():
    """On a slope along one coordinate, half of the proposals are moved that way, and no other way."""
    seen = []

    def q_fn(candidates):
        seen.append(candidates.detach())
        return 2.0 * candidates[..., 1]

    Corrector(8, [0.1], guided_share=0.5)(q_fn, th.zeros(2_000, 3), 1.0)
    noisy, candidates = seen
    moves = (candidates - noisy).mean(dim=1)
    assert candidates.shape == (9, 2_000, 3)
    # by 1.5 standard deviations of the noise per coordinate, but where the action took the place of one
    assert moves[6:, 1] == pytest.approx(0.15 * 3**0.5, abs=0.01)
    assert moves[:5, 1] == pytest.approx(0.0, abs=0.02)
    assert moves[:, [0, 2]].flatten() == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("n_guided", [0, 2])
def test_at_a_low_temperature_the_best_candidate_is_taken(n_guided):
    actions = th.tensor([[0.3, -0.2], [0.9, 0.9]])
    draws = th.randn(7 if n_guided else 6, 2, 2, generator=th.Generator().manual_seed(0))
    noise = CorrectorNoise(draws, th.full((2,), 0.5))
    seen = []

    def q_fn(candidates):
        seen.append(candidates.detach())
        return -candidates.square().sum(dim=-1)

    if n_guided:
        found = guided_particle_gibbs(q_fn, actions, 0.4, 1e-6, noise, th.full((2,), 0.5), n_guided)
    else:
        found = particle_gibbs(q_fn, actions, 0.4, 1e-6, noise)
    candidates = seen[-1]
    assert candidates.shape == (6, 2, 2)
    for row in range(2):
        assert (candidates[:, row] == actions[row]).all(dim=-1).sum() == 1, "the action itself is one of them"
    norms = candidates.square().sum(dim=-1)
    assert th.equal(found.square().sum(dim=-1), norms.amin(dim=0))


@pytest.mark.parametrize(("draw", "expected"), [(0.0, 0), (0.3, 1), (1 - 2**-24, 3)])
def test_a_draw_chooses_by_the_cumulative_probability(draw, expected):
    # four equal candidates
    noise = CorrectorNoise(th.randn(4, 3, 2), th.full((3,), draw))
    seen = []

    def q_fn(candidates):
        seen.append(candidates)
        return th.zeros(candidates.shape[:-1])

    found = particle_gibbs(q_fn, th.zeros(3, 2), 0.1, 1.0, noise)
    assert th.equal(found, seen[0][expected])


def test_without_proposals_actions_stay():
    actions = th.rand(4, 2)
    assert Corrector(0)(lambda a: a.sum(dim=-1), actions, 1.0) is actions
