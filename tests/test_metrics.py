"""Do the metrics return their closed forms?"""

import math

import pytest
import torch as th

from sb3_dqs.metrics import maximum_mean_discrepancy, normalised_entropy, total_variation


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


def test_total_variation_of_a_histogram():
    samples = th.tensor([-0.9, -0.8, 0.1, 1.0])
    assert total_variation(samples, th.tensor([0.5, 0.5])) == pytest.approx(0.0)
    assert total_variation(samples, th.tensor([1.0, 0.0])) == pytest.approx(0.5)
