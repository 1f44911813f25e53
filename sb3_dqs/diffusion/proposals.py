"""Where is the critic asked? At actions drawn from a normal law around the noisy action, truncated to the box [-1, 1]^d."""

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

    The coordinate is mirrored so that the truncation interval lies in the left tail of the normal law, where floats are
    dense: in float32 a mean 8 sigma outside the box still gives distinct proposals inside it.

    :param mean: (batch, action_dim), may lie outside the box
    :param sigma: (batch, 1), standard deviation > 0, action units
    :param uniforms: (n, batch, action_dim), in [0, 1]
    :return: (n, batch, action_dim), in [-1, 1]
    """
    # side = +1 for a mean left of the centre: its box then begins at the standardised distance -lower, and lower >= upper
    side = th.where(mean > 0, -1.0, 1.0)
    distance = side * mean
    upper_tail = th.special.ndtr((distance + 1) / sigma)
    lower_tail = th.special.ndtr((distance - 1) / sigma)
    quantile = th.special.ndtri(lower_tail + uniforms * (upper_tail - lower_tail))
    return (side * (distance - sigma * quantile)).clamp(-1.0, 1.0)
