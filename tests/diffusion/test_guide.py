"""Does the guide find mean and width of the posterior from the denoiser alone?"""

import pytest
import torch as th

from sb3_dqs.diffusion.box import GUIDE_WIDENING, denoiser_guide
from sb3_dqs.diffusion.estimators import Guide, box_posterior_mean, q_values_and_gradients
from tests import truth


def guide_at(log_density, noisy_actions, sigma, is_tilted=False):
    denoise = truth.denoiser(log_density)
    noisy = th.tensor([noisy_actions], dtype=th.float64)
    sigmas = th.full((1, 1), sigma, dtype=th.float64)
    denoised = denoise(noisy, sigma)
    gradients = None
    if is_tilted:
        _, gradients = q_values_and_gradients(truth.product_q_fn(log_density), denoised.unsqueeze(0))
        gradients = gradients.squeeze(0)
    return denoiser_guide(lambda x, s: denoise(x, s[0].item()), denoised, noisy, sigmas, th.ones_like(noisy), gradients)


@pytest.mark.parametrize("is_tilted", [False, True])
def test_guide_of_a_gaussian_has_its_posterior_mean_and_widened_variance(is_tilted):
    def narrow(actions):
        return -((actions - 0.1) ** 2) / (2 * 0.1**2)

    # the mean of a Gaussian posterior is its peak: no slope there, nothing to tilt
    guide = guide_at(narrow, [0.3, 0.0], 0.2, is_tilted)
    # posterior of N(0.1, 0.01) at sigma^2 = 0.04: mean (0.01 x + 0.04 * 0.1) / 0.05, variance 0.0004 / 0.05
    assert guide.mean.flatten().tolist() == pytest.approx([0.14, 0.08], abs=1e-3)
    assert guide.sigma.item() == pytest.approx((GUIDE_WIDENING * 0.008) ** 0.5, rel=0.01)


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


def test_tilt_follows_the_slope_of_the_posterior_up_to_its_limit():
    # exp(2 a) seen at x = 0 through sigma = 0.2: ln p(a | x) = 2 a - a^2 / 0.08, whose peak is at 0.08; walls out of reach
    guide = guide_at(lambda a: 2 * a, [0.0], 0.2, is_tilted=True)
    assert guide.mean.item() == pytest.approx(0.08, abs=1e-4)
    # from denoised actions that lag behind, at 0: slope 2, so a step of sigma^2 * 2, whatever the lag
    noisy, sigma, lagging = (th.tensor([[value]], dtype=th.float64) for value in (0.0, 0.2, 0.0))
    guide = denoiser_guide(lambda x, s: x, lagging, noisy, sigma, th.ones_like(noisy), th.full_like(noisy, 2.0))
    assert guide.mean.item() == pytest.approx(0.08)
    # a slope of 100 would be a step of 4 = 20 standard deviations
    guide = denoiser_guide(lambda x, s: x, lagging, noisy, sigma, th.ones_like(noisy), th.full_like(noisy, -100.0))
    assert guide.mean.item() == pytest.approx(-2 * 0.2)


@pytest.mark.parametrize(("log_density", "sigma"), [(truth.corner, 0.5), (truth.corner, 1.5), (truth.linear, 0.5)])
def test_tilt_makes_more_proposals_count_where_q_presses_against_the_walls(log_density, sigma):
    def effective_sample_size(is_tilted, n_rows=400):
        generator = th.Generator().manual_seed(0)
        guide = guide_at(log_density, [0.5] * 6, sigma, is_tilted)
        rows = Guide(*(part.expand(n_rows, -1) for part in guide))
        noisy = th.full((n_rows, 6), 0.5, dtype=th.float64)
        uniforms = th.rand((8, n_rows, 6), dtype=th.float64, generator=generator)
        sigmas = noisy[:, :1] * 0 + sigma
        q_fn = truth.product_q_fn(log_density)
        return box_posterior_mean(q_fn, noisy, sigmas, 1.0, uniforms, "value", rows).effective_sample_size.mean().item()

    untilted, tilted = effective_sample_size(False), effective_sample_size(True)
    print(f"\n{log_density.__name__}, sigma {sigma}: {untilted:.2f} of 16 proposals count, with the tilt {tilted:.2f}")
    assert tilted > 1.2 * untilted
