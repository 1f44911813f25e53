"""
Where is the critic asked? At actions drawn from a normal law around the noisy action, truncated to the box [-1, 1]^d.

The coordinate is mirrored so that the truncation interval lies in the left tail of the normal law, where floats are dense:
in float32 a mean 8 sigma outside the box still gives distinct proposals inside it.
"""

import math

import torch as th


def antithetic_uniforms(uniforms: th.Tensor) -> th.Tensor:
    """
    Complete n / 2 uniform draws to n by their mirror images u and 1 - u.

    Fed to an inverse CDF, the errors of a pair cancel to first order: inside the box and at small sigma, the mean of the
    proposals is the noisy action itself.

    :param uniforms: (n / 2, batch, action_dim), in [0, 1)
    :return: (n, batch, action_dim)
    """
    return th.cat([uniforms, 1 - uniforms])


def truncated_normal(mean: th.Tensor, sigma: th.Tensor, uniforms: th.Tensor) -> th.Tensor:
    """
    Map uniform draws to N(mean, sigma^2 I) truncated to [-1, 1]^d, by the inverse CDF of each coordinate.

    :param mean: (batch, action_dim), may lie outside the box
    :param sigma: (batch, 1), standard deviation > 0, action units
    :param uniforms: (n, batch, action_dim), in [0, 1]
    :return: (n, batch, action_dim), in [-1, 1]
    """
    side, centre, lower, upper = _mirrored_interval(mean, sigma)
    lower_tail, upper_tail = _lower_tail(lower), _lower_tail(upper)
    quantile = th.special.ndtri(lower_tail + uniforms * (upper_tail - lower_tail))
    # where the mass of the whole interval rounds to 0, the nearest wall holds it all
    quantile = th.where(quantile < lower, upper, quantile)
    return (side * (centre - sigma * quantile)).clamp(-1.0, 1.0)


def truncated_normal_mean(mean: th.Tensor, sigma: float | th.Tensor) -> th.Tensor:
    """
    Mean of N(mean, sigma^2 I) truncated to [-1, 1]^d: the exact denoiser E[a | x] of the uniform law on the box.

    :param mean: (..., action_dim), may lie outside the box
    :param sigma: broadcastable to the mean, standard deviation > 0, action units
    :return: (..., action_dim), in [-1, 1]
    """
    side, centre, lower, upper = _mirrored_interval(mean, sigma)
    # Densities and masses relative to the mass below ``upper``, which may be too small for a float
    log_mass = th.special.log_ndtr(upper)
    log_normalisation = log_mass + math.log(2 * math.pi) / 2
    density_difference = th.exp(-(lower**2) / 2 - log_normalisation) - th.exp(-(upper**2) / 2 - log_normalisation)
    mass = -th.expm1(th.special.log_ndtr(lower) - log_mass)
    return (side * (centre - sigma * density_difference / mass)).clamp(-1.0, 1.0)


def truncated_normal_log_density(actions: th.Tensor, mean: th.Tensor, sigma: th.Tensor) -> th.Tensor:
    """
    Log-density of N(mean, sigma^2 I) truncated to [-1, 1]^d, up to the constant d / 2 ln(2 pi).

    :param actions: (n, batch, action_dim), in [-1, 1]
    :param mean: (batch, action_dim), may lie outside the box
    :param sigma: (batch, 1), standard deviation > 0, action units
    :return: (n, batch), per unit of action volume
    """
    _, _, lower, upper = _mirrored_interval(mean, sigma)
    log_upper_tail = th.special.log_ndtr(upper)
    log_mass = log_upper_tail + th.log(-th.expm1(th.special.log_ndtr(lower) - log_upper_tail))
    log_normalisation = (log_mass + th.log(sigma)).sum(dim=-1)
    return -(((actions - mean) / sigma) ** 2).sum(dim=-1) / 2 - log_normalisation


def _lower_tail(quantile: th.Tensor) -> th.Tensor:
    """Mass of the standard normal law below a quantile; ``th.special.ndtr`` rounds the tail to 0 from -8 on."""
    return th.erfc(quantile * -math.sqrt(0.5)) / 2


def _mirrored_interval(mean: th.Tensor, sigma: float | th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor, th.Tensor]:
    """
    Mirror each coordinate so that ``centre <= 0``; then actions are side * (centre - sigma * z), z in [lower, upper].

    :return: side (-1 where mirrored), mirrored mean, and the ends of the interval of the standard normal z
    """
    side = th.where(mean > 0, -1.0, 1.0).to(mean.dtype)
    centre = side * mean
    return side, centre, (centre - 1) / sigma, (centre + 1) / sigma
