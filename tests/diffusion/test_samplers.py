"""Do the samplers follow their exact solutions, with the order they claim?"""

import itertools
import math

import pytest
import torch as th

from sb3_dqs.diffusion.noise import GeometricNoise, geometric_sigmas
from sb3_dqs.diffusion.samplers import dpm_solver_pp_2m, euler_maruyama

MEAN, VARIANCE = 0.3, 0.04


def gaussian_denoiser(noisy_actions, sigma):
    """E[a | x] of a ~ N(MEAN, VARIANCE)."""
    return (VARIANCE * noisy_actions + sigma**2 * MEAN) / (VARIANCE + sigma**2)


def exact_ode_denoised(start, sigma_max, sigma_min):
    """The ODE keeps (x - MEAN) / sqrt(VARIANCE + sigma^2); then the denoiser at sigma_min."""
    end = MEAN + (start - MEAN) * math.sqrt((VARIANCE + sigma_min**2) / (VARIANCE + sigma_max**2))
    return gaussian_denoiser(end, sigma_min)


@pytest.mark.parametrize("order", [1, 2])
def test_solver_converges_with_its_order(order):
    start = th.tensor([[2.0], [-5.0]], dtype=th.float64)
    exact = exact_ode_denoised(start, 3.0, 0.02)
    errors = []
    for n_steps in (41, 81, 161):
        # ln sigma in equal steps, so that halving the step halves it everywhere
        sigmas = th.logspace(math.log10(3.0), math.log10(0.02), n_steps, dtype=th.float64).tolist()
        errors.append((dpm_solver_pp_2m(gaussian_denoiser, start, sigmas, order) - exact).abs().max().item())
    observed = [math.log2(first / second) for first, second in itertools.pairwise(errors)]
    assert observed == pytest.approx([order, order], abs=0.15)


def test_the_five_default_steps_are_close_to_the_exact_solution():
    start = th.linspace(-3, 3, 13, dtype=th.float64).unsqueeze(1)
    exact = exact_ode_denoised(start, 1.5, 0.02)
    second = (dpm_solver_pp_2m(gaussian_denoiser, start, geometric_sigmas(0.02, 1.5, 5)) - exact).abs().max()
    first = (dpm_solver_pp_2m(gaussian_denoiser, start, geometric_sigmas(0.02, 1.5, 5), order=1) - exact).abs().max()
    # two standard deviations of the noise either way end two standard deviations, 0.4, from the mean
    assert second < 0.03
    assert second < 0.5 * first


def test_recentred_start_removes_the_shift_of_a_start_around_zero():
    # from noise around 0, the ODE shifts the law by its standard deviation times its mean over sigma: 0.2 * 0.3 / 3
    start = 3.0 * th.randn(100_000, 1, dtype=th.float64, generator=th.Generator().manual_seed(0))
    sigmas = geometric_sigmas(0.02, 3.0, 40)
    shift = dpm_solver_pp_2m(gaussian_denoiser, start, sigmas).mean() - MEAN
    recentred_shift = dpm_solver_pp_2m(gaussian_denoiser, start, sigmas, recentre=True).mean() - MEAN
    assert shift == pytest.approx(-0.02, abs=0.003)
    assert abs(recentred_shift) < 0.003


def test_one_step_returns_the_denoiser_itself():
    start = th.tensor([[1.0]], dtype=th.float64)
    assert dpm_solver_pp_2m(gaussian_denoiser, start, [3.0]) == gaussian_denoiser(start, 3.0)


@pytest.mark.parametrize("with_noise", [True, False])
def test_euler_maruyama_follows_the_moment_recursion(with_noise):
    # Linear score of N(MEAN, VARIANCE) smoothed by sigma(t): x <- (1 - k) x + k MEAN + noise of variance g^2 dt
    process, n_steps, n_chains = GeometricNoise(0.01, 1.0), 50, 100_000

    def score_fn(x, time):
        return -(x - MEAN) / (VARIANCE + process.sigma(th.tensor(time, dtype=th.float64)) ** 2)

    mean, variance = 0.0, 1.0
    for step in range(n_steps):
        time = 1 - step / n_steps
        rate = process.diffusion_coefficient(time) ** 2 / n_steps
        shrink = rate / (VARIANCE + process.sigma(th.tensor(time, dtype=th.float64)).item() ** 2)
        mean = (1 - shrink) * mean + shrink * MEAN
        variance = (1 - shrink) ** 2 * variance + (rate if with_noise else 0.0)

    generator = th.Generator().manual_seed(0)
    start = th.randn(n_chains, 1, dtype=th.float64, generator=generator)
    noise = th.randn(n_steps, n_chains, 1, dtype=th.float64, generator=generator) if with_noise else None
    samples = euler_maruyama(score_fn, start, process, n_steps, noise)
    assert abs(samples.mean() - mean) < 4 * math.sqrt(variance / n_chains)
    assert abs(samples.var() - variance) < 4 * variance * math.sqrt(2 / n_chains)


def test_euler_maruyama_approaches_the_target_law():
    process = GeometricNoise(0.01, 1.0)

    def score_fn(x, time):
        return -(x - MEAN) / (VARIANCE + process.sigma(th.tensor(time, dtype=th.float64)) ** 2)

    generator = th.Generator().manual_seed(0)
    start = math.sqrt(1 + VARIANCE) * th.randn(20_000, 1, dtype=th.float64, generator=generator) + MEAN
    noise = th.randn(400, 20_000, 1, dtype=th.float64, generator=generator)
    samples = euler_maruyama(score_fn, start, process, 400, noise)
    assert abs(samples.mean() - MEAN) < 0.01
    assert abs(samples.var() - VARIANCE) < 0.003
