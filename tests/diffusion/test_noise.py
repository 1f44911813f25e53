"""Are the noise levels the documented ones?"""

import math

import pytest
import torch as th

from sb3_dqs.diffusion.noise import GeometricNoise, geometric_sigmas, stratified_log_uniform_sigmas


def test_grid_runs_between_its_ends_uniformly_in_the_logarithm():
    assert geometric_sigmas(0.01, 1.0, 3) == pytest.approx([1.0, 0.1, 0.01])
    sigmas = geometric_sigmas(0.02, 1.5, 5)
    assert (sigmas[0], sigmas[-1]) == (1.5, 0.02)


def test_each_stratum_of_ln_sigma_gets_one_level():
    uniforms = th.rand(50, 1, generator=th.Generator().manual_seed(0))
    sigmas = stratified_log_uniform_sigmas(uniforms, 0.02, 3.0)
    position = (sigmas.log() - math.log(0.02)) / math.log(3.0 / 0.02) * 50
    assert (position.floor().squeeze() == th.arange(50)).all()


def test_published_noise_has_the_published_variance_and_rate():
    process = GeometricNoise(1e-5, 1.0)
    time = th.tensor([0.0, 0.25, 0.5, 1.0], dtype=th.float64)
    # sigma^2 = s_min^2 (ratio^(2t) - 1) with ratio 1e5
    expected = th.tensor([0.0, 1e-10 * (10**2.5 - 1), 1e-10 * (1e5 - 1), 1e-10 * (1e10 - 1)], dtype=th.float64)
    assert th.allclose(process.sigma(time) ** 2, expected, rtol=1e-12)
    # g^2 = d sigma^2 / dt, by a central difference
    step = 1e-6
    slope = (process.sigma(time[1:3] + step) ** 2 - process.sigma(time[1:3] - step) ** 2) / (2 * step)
    assert [process.diffusion_coefficient(t) ** 2 for t in (0.25, 0.5)] == pytest.approx(slope.tolist(), rel=1e-6)
