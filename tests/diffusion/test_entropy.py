"""Is the entropy that of the exact law, smoothed at sigma_min?"""

import math

import numpy as np
import pytest
import torch as th

from sb3_dqs.diffusion.entropy import denoiser_entropy
from sb3_dqs.diffusion.noise import stratified_log_uniform_sigmas
from tests import truth

SIGMA_MIN, SIGMA_MAX = 0.02, 3.0


def uniform(actions):
    return 0 * actions


def narrow(actions):
    return -((actions - 0.1) ** 2) / (2 * 0.1**2)


def entropy_estimates(log_density, action_dim, n_levels, n_repeats, sigma_data=0.5):
    """``n_repeats`` independent estimates, each from ``n_levels`` rows as in one update, with the exact denoiser."""
    rng = np.random.default_rng(0)
    generator = th.Generator().manual_seed(0)
    fixed = stratified_log_uniform_sigmas(th.full((n_levels, 1), 0.5, dtype=th.float64), SIGMA_MIN, SIGMA_MAX)
    denoise = truth.tabulated_denoiser(log_density, SIGMA_MAX)
    actions = truth.sample(log_density, n_levels * n_repeats, action_dim, rng).reshape(n_levels, n_repeats, action_dim)
    noisy = actions + fixed.unsqueeze(1) * th.randn(actions.shape, dtype=th.float64, generator=generator)
    denoised = th.stack([denoise(noisy[level], fixed[level].item()) for level in range(n_levels)])
    return th.stack(
        [
            denoiser_entropy(actions[:, i], noisy[:, i], denoised[:, i], fixed, SIGMA_MIN, SIGMA_MAX, sigma_data)
            for i in range(n_repeats)
        ]
    )


@pytest.mark.parametrize("action_dim", [1, 2, 6])
@pytest.mark.parametrize("log_density", [uniform, truth.gaussian, truth.two_peaks, truth.corner, narrow])
def test_entropy_is_within_a_tenth_of_a_nat_per_dimension(log_density, action_dim):
    estimates = entropy_estimates(log_density, action_dim, n_levels=32, n_repeats=300) / action_dim
    exact = truth.smoothed_entropy(log_density, SIGMA_MIN)
    standard_error = estimates.std() / math.sqrt(len(estimates))
    print(
        f"\n{log_density.__name__} d={action_dim}: {estimates.mean():.3f} +- {standard_error:.3f}, truth {exact:.3f}, "
        f"sd of one update's estimate {estimates.std():.2f}"
    )
    assert abs(estimates.mean() - exact) < 0.1 - 2 * standard_error


def test_mixed_form_is_far_less_noisy_than_either_form_alone():
    mixed = entropy_estimates(truth.two_peaks, 1, 32, 300).std()
    residual_only = entropy_estimates(truth.two_peaks, 1, 32, 300, sigma_data=1e-6).std()
    score_only = entropy_estimates(truth.two_peaks, 1, 32, 300, sigma_data=1e6).std()
    print(f"\nsd of one estimate: mixed {mixed:.2f}, residual form {residual_only:.2f}, score form {score_only:.2f}")
    assert mixed < 0.5 * min(residual_only, score_only)
