"""What becomes of normal noise between mirrors at the walls? Points, and the density that they have."""

import math

import torch as th


def reflect(points: th.Tensor) -> th.Tensor:
    """
    :param points: coordinates of any size
    :return: where a ray to that point from inside the box ends if the walls at -1 and 1 are mirrors, in [-1, 1]
    """
    return 1 - ((points + 1).remainder(4) - 2).abs()


def reflected_normal_log_density(points: th.Tensor, centres: th.Tensor, sigma: float | th.Tensor) -> th.Tensor:
    """
    Log-density of ``reflect(centre + sigma * noise)``, from the nearest images of the centre in the mirrors: for sigma up to 1
    those left out are too far away to tell.

    :param points: (..., action_dim), in [-1, 1]
    :param centres: (..., action_dim), in [-1, 1]
    :param sigma: standard deviation > 0, action units; (..., action_dim) where it differs
    :return: (...), without the constant of the normal law
    """
    images = th.stack([centres, 2 - centres, -2 - centres, centres + 4, centres - 4], dim=-1)
    distances = points.unsqueeze(-1) - images
    log_normalisation: float | th.Tensor
    if isinstance(sigma, th.Tensor):
        distances, log_normalisation = distances / sigma.unsqueeze(-1), sigma.log().sum(dim=-1)
    else:
        distances, log_normalisation = distances / sigma, points.shape[-1] * math.log(sigma)
    return th.logsumexp(distances.square() / -2, dim=-1).sum(dim=-1) - log_normalisation
