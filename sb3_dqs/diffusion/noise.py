"""Which noise levels is the network trained on, and which ones does the sampler visit?"""

import math
from dataclasses import dataclass

import torch as th


def geometric_sigmas(sigma_min: float, sigma_max: float, n_steps: int) -> list[float]:
    """
    Decreasing grid of noise levels for a sampler, uniform in ln sigma.

    With five or six levels the sampled laws are far closer to the exact ones than with the grid of the EDM sampler
    (arXiv:2206.00364, uniform in sigma^(1/7)), which leaves too few levels where the modes part: see
    ``python -m benchmarks.sampler_grids``.

    :param sigma_min: smallest standard deviation of the noise, action units
    :param sigma_max: largest standard deviation of the noise, action units
    :param n_steps: number of levels, >= 2
    :return: ``n_steps`` levels from ``sigma_max`` down to ``sigma_min``
    """
    ratio = sigma_min / sigma_max
    levels = [sigma_max * ratio ** (step / (n_steps - 1)) for step in range(n_steps)]
    return [*levels[:-1], sigma_min]


def stratified_log_uniform_sigmas(uniforms: th.Tensor, sigma_min: float, sigma_max: float) -> th.Tensor:
    """
    One noise level in each of B equal strata of [ln sigma_min, ln sigma_max].

    Each level is log-uniform over the rows, and the mean of a function over the rows is a quadrature of its integral over
    ln sigma, with far less noise than B independent levels.

    :param uniforms: (B, 1), uniform in [0, 1)
    :param sigma_min: smallest standard deviation of the noise, action units
    :param sigma_max: largest standard deviation of the noise, action units
    :return: (B, 1), increasing over the rows
    """
    n_strata = uniforms.shape[0]
    strata = th.arange(n_strata, dtype=uniforms.dtype, device=uniforms.device).unsqueeze(1)
    fraction = (strata + uniforms) / n_strata
    return sigma_min * th.exp(fraction * math.log(sigma_max / sigma_min))


@dataclass(frozen=True)
class GeometricNoise:
    """
    The published variance-exploding noise process over time t in [0, 1].

    Source: DQS, arXiv:2410.01312, as in the authors' code.

    :param sigma_min: scale of the noise at small t, action units
    :param sigma_max: scale of the noise at t = 1, action units
    """

    sigma_min: float
    sigma_max: float

    def sigma(self, time: th.Tensor) -> th.Tensor:
        """
        Standard deviation of the noise added up to ``time``; zero at time 0.

        :param time: any shape, in [0, 1]
        :return: same shape, action units
        """
        ratio = self.sigma_max / self.sigma_min
        # expm1 keeps sigma exact where sigma(t) is far below sigma_min
        return self.sigma_min * th.sqrt(th.expm1(2 * math.log(ratio) * time))

    def diffusion_coefficient(self, time: float) -> float:
        """
        Rate g of the noise: d sigma^2 / dt = g^2.

        :param time: in [0, 1]
        :return: action units per square root of time
        """
        log_ratio = math.log(self.sigma_max / self.sigma_min)
        return self.sigma_min * math.exp(log_ratio * time) * math.sqrt(2 * log_ratio)
