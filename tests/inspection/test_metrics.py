"""Do the metrics return their closed forms?"""

import math

import numpy as np
import pytest
import torch as th

from sb3_dqs.inspection.metrics import (
    GoalStatistics,
    boltzmann_masses,
    draws_from_masses,
    goal_statistics,
    maximum_mean_discrepancy,
    mode_masses,
    mode_shares,
    normalised_entropy,
    sliced_wasserstein_2,
    total_variation,
    total_variation_of_exact_draws,
)


def test_discrepancy_of_two_gaussians_equals_its_closed_form():
    # In 1-D with bandwidth h: E k(a, b) = h / s exp(-m^2 / (2 s^2)), s^2 = h^2 + var_a + var_b, m the difference of means
    generator = th.Generator().manual_seed(0)
    samples = 0.5 * th.randn(4_000, 1, dtype=th.float64, generator=generator)
    reference = 1.0 + th.randn(4_000, 1, dtype=th.float64, generator=generator)

    def kernel_mean(variance, distance):
        scale = 1.0 + variance
        return math.exp(-(distance**2) / (2 * scale)) / math.sqrt(scale)

    exact = math.sqrt(kernel_mean(0.5, 0.0) + kernel_mean(2.0, 0.0) - 2 * kernel_mean(1.25, 1.0))
    assert maximum_mean_discrepancy(samples, reference, 1.0) == pytest.approx(exact, abs=0.02)
    assert maximum_mean_discrepancy(samples[:2_000], samples[2_000:], 1.0) < 0.05


def test_entropy_of_goals():
    assert normalised_entropy(th.tensor([25, 25, 25, 25])) == pytest.approx(1.0)
    assert normalised_entropy(th.tensor([50, 50, 0, 0])) == pytest.approx(0.5)
    assert normalised_entropy(th.tensor([7, 0, 0, 0])) == 0.0
    assert normalised_entropy(th.tensor([0, 0, 0, 0])) == 0.0
    assert normalised_entropy(th.tensor([0.2, 0.2, 0.0, 0.0])) == pytest.approx(0.5), "shares that leave some out"


def test_total_variation_of_a_histogram():
    samples = th.tensor([-0.9, -0.8, 0.1, 1.0])
    assert total_variation(samples, th.tensor([0.5, 0.5])) == pytest.approx(0.0)
    assert total_variation(samples, th.tensor([1.0, 0.0])) == pytest.approx(0.5)


def test_two_dimensional_total_variation_against_masses():
    samples = th.tensor([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
    assert total_variation(samples, th.full((2, 2), 0.25)) == pytest.approx(0.0)
    # first index is the first coordinate
    assert total_variation(samples[:2], th.tensor([[0.5, 0.5], [0.0, 0.0]])) == pytest.approx(0.0)
    assert total_variation(samples[:2], th.tensor([[0.5, 0.0], [0.5, 0.0]])) == pytest.approx(0.5)


def test_goal_statistics_count_misses_and_goals():
    statistics = goal_statistics([0, 0, 2, -1], n_goals=4)
    assert statistics == GoalStatistics(0.75, 2, statistics.goal_entropy, [2, 0, 1, 0])
    # entropy of (2/3, 1/3) over ln 4
    assert statistics.goal_entropy == pytest.approx((math.log(3) - 2 / 3 * math.log(2)) / math.log(4))
    with pytest.raises(ValueError, match=r"got \[4\]"):
        goal_statistics([4], n_goals=4)
    with pytest.raises(ValueError, match="at least one episode"):
        goal_statistics([], n_goals=4)


def test_sliced_distance_of_a_shift_and_of_two_gaussians():
    generator = th.Generator().manual_seed(0)
    samples = th.randn(5_000, 2, dtype=th.float64, generator=generator)
    # a shift by v moves every projection on u by (u, v): for u = x and u = y the mean square is |v|^2 / 2
    shifted = samples + th.tensor([3.0, 4.0])
    assert sliced_wasserstein_2(samples, shifted, 7 * th.eye(2)) == pytest.approx(5 / math.sqrt(2))
    # W2 of N(0, 1) and N(0, 4) in 1-D is the difference of the standard deviations; sd of its estimate is about 1.5 / sqrt(n)
    wider = 2 * th.randn(5_000, 2, dtype=th.float64, generator=generator)
    directions = th.randn(50, 2, generator=generator)
    assert sliced_wasserstein_2(samples, wider, directions) == pytest.approx(1.0, abs=4 * 1.5 / math.sqrt(5_000))
    with pytest.raises(ValueError, match="as many"):
        sliced_wasserstein_2(samples, wider[:10], directions)


def test_masses_of_a_linear_q_in_one_and_two_dimensions():
    # Q = 3 a at temperature 2: exp(1.5 a); mass below 0 is (1 - e^-1.5) / (e^1.5 - e^-1.5) = 1 / (1 + e^1.5)
    low = 1 / (1 + math.exp(1.5))
    assert boltzmann_masses(lambda actions: 3 * actions[..., 0], 2.0, 1, n_bins=2, points_per_bin=1_000).tolist() == (
        pytest.approx([low, 1 - low], abs=1e-6)
    )
    # of the second coordinate alone: independent of the first
    masses = boltzmann_masses(lambda actions: 3 * actions[..., 1], 2.0, 2, n_bins=2, points_per_bin=200)
    assert masses.flatten().tolist() == pytest.approx([low / 2, (1 - low) / 2] * 2, abs=1e-5)
    with pytest.raises(ValueError, match="got 3"):
        boltzmann_masses(lambda actions: actions[..., 0], 1.0, 3)
    with pytest.raises(ValueError, match="temperature"):
        boltzmann_masses(lambda actions: actions[..., 0], 0.0, 1)


def test_exact_draws_have_the_masses_of_their_bins_and_are_uniform_within():
    masses = th.tensor([[0.1, 0.2, 0.0], [0.3, 0.0, 0.4]])
    n = 40_000
    th.manual_seed(0)
    draws = draws_from_masses(masses, n)
    assert draws.shape == (n, 2)
    # bins are 1 wide in the first coordinate and 2 / 3 in the second
    found = np.histogramdd(draws.numpy(), [np.linspace(-1, 1, 3), np.linspace(-1, 1, 4)])[0] / n
    assert (abs(found - masses.numpy()) <= 4 * np.sqrt(masses.numpy() * (1 - masses.numpy()) / n)).all()
    inside = draws[(draws[:, 0] > 0) & (draws[:, 1] > 1 / 3)]
    # uniform on (0, 1) x (1 / 3, 1): means 1 / 2 and 2 / 3, standard deviations 1 / sqrt(12) and 2 / 3 / sqrt(12)
    standard_errors = np.array([1, 2 / 3]) / np.sqrt(12 * len(inside))
    assert (abs(inside.mean(dim=0).numpy() - [1 / 2, 2 / 3]) < 4 * standard_errors).all()


def test_total_variation_of_exact_draws_is_as_small_as_chance_allows():
    masses = th.tensor([0.7, 0.2, 0.1, 0.0])
    n = 20_000
    bins = th.multinomial(masses, n, replacement=True, generator=th.Generator().manual_seed(0))
    samples = -0.75 + 0.5 * bins.double()
    chance = total_variation_of_exact_draws(masses, n)
    assert 0 < total_variation(samples, masses) < 3 * chance
    # many draws: normal counts, whose mean deviation is sqrt(2 / pi) standard deviations
    normal = (masses * (1 - masses) / (2 * math.pi * n)).sqrt().sum().item()
    assert chance == pytest.approx(normal, rel=1e-3)


@pytest.mark.parametrize(
    ("masses", "n_draws", "expected"),
    [
        # one draw lies 1 - p from its law where it falls: sum p (1 - p)
        ([0.5, 0.5], 1, 0.5),
        ([0.7, 0.2, 0.1], 1, 0.7 * 0.3 + 0.2 * 0.8 + 0.1 * 0.9),
        # two tosses: halves with probability 1 / 2, else 1 / 2 away
        ([0.5, 0.5], 2, 0.25),
        ([1.0, 0.0], 7, 0.0),
    ],
)
def test_total_variation_of_few_exact_draws_by_hand(masses, n_draws, expected):
    assert total_variation_of_exact_draws(th.tensor(masses, dtype=th.float64), n_draws) == pytest.approx(expected, abs=1e-12)


def test_mode_recovery_on_samples_and_on_masses():
    centres = th.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = th.tensor([[0.5, 0.0], [0.0, 2.9], [10.0, 3.1], [10.0, 0.0]])
    shares = mode_shares(samples, centres, radius=3.0)
    assert shares.tolist() == [0.5, 0.25, 0.0]
    assert int((shares > 0).sum()) == 2
    # a sample within reach of two centres belongs to the nearer one
    assert mode_shares(th.tensor([[0.9, 0.0]]), th.tensor([[0.0, 0.0], [2.0, 0.0]]), radius=3.0).tolist() == [1.0, 0.0]
    # uniform law on the square: the quarter disc in a corner has area pi / 4 of 4
    masses = th.full((400, 400), 1 / 160_000)
    assert mode_masses(masses, th.tensor([[-1.0, -1.0]]), radius=1.0).item() == pytest.approx(math.pi / 16, abs=1e-3)
    # two centres that share the square between them
    halves = mode_masses(masses, th.tensor([[-0.5, 0.0], [0.5, 0.0]]), radius=3.0)
    assert halves.tolist() == pytest.approx([0.5, 0.5])


NAN = th.tensor([[0.1], [math.nan]])
TWO = th.tensor([[0.1], [0.2]])
HALVES = th.tensor([0.5, 0.5])


@pytest.mark.parametrize(
    ("measure", "named"),
    [
        (lambda: maximum_mean_discrepancy(NAN, TWO, 0.3), "samples must be at least 2 finite points"),
        (lambda: maximum_mean_discrepancy(TWO, TWO[:1], 0.3), "reference must be at least 2 finite points"),
        (lambda: maximum_mean_discrepancy(TWO, TWO, 0.0), "bandwidth"),
        (lambda: sliced_wasserstein_2(TWO, NAN, th.ones(3, 1)), "reference must be"),
        (lambda: sliced_wasserstein_2(TWO, TWO, th.zeros(3, 1)), "directions must be of length > 0"),
        (lambda: total_variation(NAN, HALVES), "samples must be"),
        (lambda: total_variation(2 * th.ones(3), HALVES), r"in \[-1, 1\], got 1 dimensions up to 2"),
        (lambda: total_variation(th.ones(3, 2), HALVES), "got 2 dimensions"),
        (lambda: total_variation(th.empty(0), HALVES), "samples must be at least 1"),
        (lambda: total_variation(TWO, th.tensor([0.5, 0.6])), "masses must be numbers >= 0 of sum 1, got sum 1.1"),
        (lambda: total_variation_of_exact_draws(th.tensor([1.5, -0.5]), 10), "masses"),
        (lambda: total_variation_of_exact_draws(HALVES, 0), "n_draws"),
        (lambda: draws_from_masses(th.tensor([math.nan, 0.5]), 3), "masses"),
        (lambda: maximum_mean_discrepancy(TWO, th.ones(2, 3), 0.3), "reference must have the 1 coordinates .* got 3"),
        (lambda: mode_masses(HALVES, th.ones(2, 3), 0.5), "centres must have the 1 coordinates of the samples or bins, got 3"),
        (lambda: mode_shares(TWO, th.ones(2, 3), 0.5), "centres must have the 1 coordinates"),
        (lambda: mode_masses(HALVES, NAN, 0.5), "centres"),
        (lambda: mode_masses(HALVES, TWO, 0.0), "radius"),
        (lambda: mode_shares(NAN, TWO, 0.5), "samples"),
        (lambda: normalised_entropy(th.tensor([3, -1])), r"counts must be .* got \[3, -1\]"),
        (lambda: goal_statistics([0.5], n_goals=2), r"got \[0\.5\]"),
        (lambda: boltzmann_masses(lambda actions: actions[..., 0] / 0, 1.0, 1), "q_fn must be finite on the box, got -inf"),
    ],
)
def test_what_cannot_be_measured_is_named(measure, named):
    with pytest.raises(ValueError, match=named):
        measure()


def test_masses_at_a_tiny_temperature_are_on_the_best_bin():
    # Q over this temperature is beyond the largest float
    assert boltzmann_masses(lambda actions: 1e10 * actions[..., 0], 1e-300, 1, n_bins=4).tolist() == [0, 0, 0, 1]


def test_samples_that_pass_the_wall_by_rounding_count():
    assert total_variation(th.tensor([1.0000001, -1.0000001]), HALVES) == 0.0
