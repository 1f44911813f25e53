"""Does the guide find mean and width of the posterior from the denoiser alone?"""

import pytest
import torch as th

from sb3_dqs.diffusion.box import denoiser_guide
from tests import truth


def guide_at(log_density, noisy_actions, sigma):
    denoise = truth.denoiser(log_density)
    noisy = th.tensor([noisy_actions], dtype=th.float64)
    sigmas = th.full((1, 1), sigma, dtype=th.float64)
    denoised = denoise(noisy, sigma)
    return denoiser_guide(
        lambda x, s: denoise(x, s[0].item()),
        denoised,
        noisy,
        sigmas,
        th.ones_like(noisy),
        widening=1.5,
        min_relative_variance=1e-3,
    )


def test_guide_of_a_gaussian_has_its_posterior_mean_and_widened_variance():
    def narrow(actions):
        return -((actions - 0.1) ** 2) / (2 * 0.1**2)

    guide = guide_at(narrow, [0.3, 0.0], 0.2)
    # posterior of N(0.1, 0.01) at sigma^2 = 0.04: mean (0.01 x + 0.04 * 0.1) / 0.05, variance 0.0004 / 0.05
    assert guide.mean.flatten().tolist() == pytest.approx([0.14, 0.08], abs=1e-3)
    assert guide.sigma.item() == pytest.approx((1.5 * 0.008) ** 0.5, rel=0.01)


def test_guide_between_two_peaks_covers_both():
    def sharp_peaks(actions):
        return 10 * th.log(th.exp(-((actions - 0.6) ** 2) / 0.18) + th.exp(-((actions + 0.6) ** 2) / 0.18))

    # at 0, half way, each peak is 0.6 away
    assert guide_at(sharp_peaks, [0.0], 1.0).sigma.item() > 0.5
    # beside one peak at little noise, the other one is out of reach
    assert guide_at(sharp_peaks, [0.6], 0.1).sigma.item() < 0.11


def test_guide_is_never_wider_than_the_noise_nor_of_no_width():
    assert guide_at(lambda a: 0 * a, [0.0], 0.05).sigma.item() == pytest.approx(0.05)
    assert guide_at(lambda a: 1e6 * a, [0.0], 0.5).sigma.item() > 0
