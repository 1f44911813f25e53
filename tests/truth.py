"""
Known answers, by closed forms and one-dimensional quadrature in float64. Nothing here comes from the package under test.

All targets are product laws: the log-density of an action is the sum of one function over its coordinates.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch as th

LogDensity = Callable[[th.Tensor], th.Tensor]

GRID = np.linspace(-1.0, 1.0, 40_001)


def gaussian(actions: th.Tensor) -> th.Tensor:
    """Mean 0.2, standard deviation 0.3."""
    return -((actions - 0.2) ** 2) / (2 * 0.3**2)


def two_peaks(actions: th.Tensor) -> th.Tensor:
    """70 % at 0.5 and 30 % at -0.5, each of standard deviation 0.3."""
    right = np.log(0.7) - (actions - 0.5) ** 2 / (2 * 0.3**2)
    left = np.log(0.3) - (actions + 0.5) ** 2 / (2 * 0.3**2)
    return th.logaddexp(right, left)


def linear(actions: th.Tensor) -> th.Tensor:
    """Slope 3 per action unit."""
    return 3.0 * actions


def corner(actions: th.Tensor) -> th.Tensor:
    """Slope 20 per action unit: nearly all mass at the upper wall."""
    return 20.0 * actions


def product_q_fn(log_density: LogDensity, temperature: float = 1.0) -> Callable[[th.Tensor], th.Tensor]:
    """Q (n, batch) of actions (n, batch, action_dim), whose Boltzmann law at ``temperature`` is the product law."""
    return lambda actions: temperature * log_density(actions).sum(dim=-1)


def grid_density(log_density: LogDensity, grid: np.ndarray = GRID) -> np.ndarray:
    """Density of one coordinate on an equidistant grid of the box."""
    values = log_density(th.as_tensor(grid)).numpy()
    return normalised(np.exp(values - values.max()), grid)


def normalised(weights: np.ndarray, grid: np.ndarray = GRID) -> np.ndarray:
    return weights / np.trapezoid(weights, grid)


def posterior_mean(log_density: LogDensity, noisy_action: float, sigma: float) -> float:
    """E[a | x] of one coordinate, x = a + sigma * noise."""
    exponent = log_density(th.as_tensor(GRID)).numpy() - (GRID - noisy_action) ** 2 / (2 * sigma**2)
    density = normalised(np.exp(exponent - exponent.max()))
    return float(np.trapezoid(GRID * density, GRID))


def posterior_means(log_density: LogDensity, noisy_actions: th.Tensor, sigma: th.Tensor) -> th.Tensor:
    """E[a | x] for (batch, action_dim) noisy actions and (batch, 1) noise levels; a table serves thousands: ``denoiser``."""
    means = th.empty_like(noisy_actions)
    for row, (noisy_row, level) in enumerate(zip(noisy_actions, sigma, strict=True)):
        means[row] = th.tensor([posterior_mean(log_density, float(x), float(level)) for x in noisy_row])
    return means


def smoothed_entropy(log_density: LogDensity, sigma: float) -> float:
    """Differential entropy, nats, of one coordinate plus N(0, sigma^2)."""
    grid = np.linspace(-1.0 - 8 * sigma, 1.0 + 8 * sigma, 8_001)
    centres = np.linspace(-1.0, 1.0, 4_001)
    mass = grid_density(log_density, centres)
    kernel = np.exp(-((grid[:, None] - centres) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    density = np.trapezoid(kernel * mass, centres, axis=1)
    positive = density > 0
    return float(-np.trapezoid(np.where(positive, density * np.log(np.where(positive, density, 1.0)), 0.0), grid))


def sample(log_density: LogDensity, n_samples: int, action_dim: int, rng: np.random.Generator) -> th.Tensor:
    """Exact draws of the product law by the inverse CDF on the grid, (n_samples, action_dim), float64."""
    density = grid_density(log_density)
    cdf = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(GRID))])
    return th.as_tensor(np.interp(rng.random((n_samples, action_dim)), cdf / cdf[-1], GRID))


def denoiser(log_density: LogDensity) -> Callable[[th.Tensor, float], th.Tensor]:
    """Exact denoiser E[a | x] of the product law as a function of (noisy actions, sigma), interpolated in a fine table."""

    def denoise(noisy_actions: th.Tensor, sigma: float) -> th.Tensor:
        table, means = _denoiser_table(log_density, float(sigma))
        return th.as_tensor(np.interp(noisy_actions.numpy(), table, means))

    return denoise


@functools.cache
def _denoiser_table(log_density: LogDensity, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    coarse = np.linspace(-1.0, 1.0, 1_001)
    table = np.linspace(-1.0 - 8 * sigma, 1.0 + 8 * sigma, 1_001)
    exponent = log_density(th.as_tensor(coarse)).numpy() - (coarse - table[:, None]) ** 2 / (2 * sigma**2)
    mass = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    # trapezoidal rule: half weight at the walls
    mass[:, [0, -1]] /= 2
    return table, (mass * coarse).sum(axis=1) / mass.sum(axis=1)
