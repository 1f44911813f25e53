"""
Where is the critic asked? At actions drawn from a normal law around the noisy action, truncated to the box [-1, 1]^d.

Each coordinate is mirrored so that its mean is negative or zero and the truncation interval lies in the tail of the normal
law where floats are dense: in float32 a mean 8 sigma outside the box still gives distinct proposals inside it.
"""

import math
from typing import Any

import torch as th
from torch import nn

from sb3_dqs.diffusion.special import OF_TORCH, Operations, available_operations

# A mean farther outside the box than this many sigma is taken at this distance, where the mass of the box is still a float32
# (1e-33). Its law lies within a few hundredths of a sigma of the wall either way, and Gaussian noise never gets there.
MAX_SIGMAS_OUTSIDE = 12.0

# From this half-width of the box on, in units of sigma, the far wall is out of reach of any mean (to 2e-6 sigma).
FAR_WALL_SIGMAS = 5.0

# In units of sqrt(2) sigma: a wall further off, seen from inside, does not show in float32, and its erfcx, infinite there, has
# no gradient
FURTHEST_WALL = -9.0

# Half the spacing of float32 draws on [0, 1), and the largest float32 below 1
SMALLEST_UNIFORM, LARGEST_UNIFORM = 2.0**-25, 1 - 2.0**-24

SQRT_HALF = math.sqrt(0.5)

# Of the mean against that of the normal law itself, per sigma: twice the normal density at 0
SHIFT = math.sqrt(2 / math.pi)


def antithetic_uniforms(uniforms: th.Tensor) -> th.Tensor:
    """
    Complete n / 2 uniform draws to n by their mirror images u and 1 - u.

    Fed to an inverse CDF, the errors of a pair cancel to first order: inside the box and at small sigma, the mean of the
    proposals is the noisy action itself.

    :param uniforms: (n / 2, batch, action_dim), in [0, 1)
    :return: (n, batch, action_dim)
    """
    return th.cat([uniforms, 1 - uniforms])


class TruncatedNormal:
    """
    N(mean, sigma^2 I) truncated to [-1, 1]^d.

    :param mean: (batch, action_dim), may lie outside the box
    :param sigma: (batch, 1), standard deviation > 0, action units
    """

    def __init__(self, mean: th.Tensor, sigma: th.Tensor):
        self.mean, self.sigma = mean, sigma
        self.distance, near_wall, far_wall = _mirrored_walls(mean, sigma)
        # twice the mass of the normal law beyond each wall, as seen from the far side: accurate where both are tiny
        self.near_tail, self.far_tail = th.erfc(near_wall), th.erfc(far_wall)

    def sample(self, uniforms: th.Tensor) -> th.Tensor:
        """
        Map uniform draws to the law by the inverse CDF of each coordinate.

        :param uniforms: (n, batch, action_dim), in [0, 1]
        :return: (n, batch, action_dim), in [-1, 1]
        """
        quantile = th.special.ndtri(self._tail_at(uniforms.clamp(SMALLEST_UNIFORM, LARGEST_UNIFORM)) / 2)
        mirrored = (-self.distance - self.sigma * quantile).clamp(-1.0, 1.0)
        return th.where(self.mean > 0, -mirrored, mirrored)

    def antithetic(self, actions: th.Tensor) -> th.Tensor:
        """
        The partners of actions in antithetic pairs: what the inverse CDF makes of 1 - u where it makes the action of u.

        :param actions: (..., batch, action_dim), in [-1, 1]
        :return: the same shape, in [-1, 1]
        """
        mirrored = th.where(self.mean > 0, -actions, actions)
        tail = th.special.ndtr((-self.distance - mirrored) / self.sigma) * 2
        smallest, largest = map(self._tail_at, (SMALLEST_UNIFORM, LARGEST_UNIFORM))
        quantile = th.special.ndtri((self.near_tail + self.far_tail - tail).clamp(smallest, largest) / 2)
        partner = (-self.distance - self.sigma * quantile).clamp(-1.0, 1.0)
        return th.where(self.mean > 0, -partner, partner)

    def _tail_at(self, uniforms: float | th.Tensor) -> th.Tensor:
        # where the inverse CDF is asked; that of a draw of 0 or 1 would be a wall, however far away that is
        return th.lerp(self.far_tail, self.near_tail, uniforms)

    def log_density(self, actions: th.Tensor) -> th.Tensor:
        """
        Log-density up to the constant d / 2 ln(2 pi).

        :param actions: (n, batch, action_dim), in [-1, 1]
        :return: (n, batch), per unit of action volume
        """
        log_normalisation = th.log((self.near_tail - self.far_tail) / 2 * self.sigma).sum(dim=-1)
        return ((actions - self.mean) / self.sigma).square().sum(dim=-1) / -2 - log_normalisation


def truncated_normal_mean(mean: th.Tensor, sigma: th.Tensor) -> th.Tensor:
    """
    Mean of N(mean, sigma^2 I) truncated to [-1, 1]^d: the exact denoiser E[a | x] of the uniform law on the box.

    By erfcx(z) = exp(z^2) erfc(z) of the walls' places z, in units of sqrt(2) sigma: it does not vanish where the mean lies
    outside of the box, so that no tail mass has to be divided by.

    :param mean: (..., action_dim), may lie outside the box
    :param sigma: broadcastable to the mean, standard deviation > 0, action units
    :return: (..., action_dim), in [-1, 1] up to rounding
    """
    distance, near_wall, far_wall = _mirrored_walls(mean, sigma)
    # exp(near_wall^2 - far_wall^2), and that minus 1, which keeps the mean exact near the middle
    exponent = -4 * (SQRT_HALF / sigma) ** 2 * distance
    # exported programs come here, too, where the denoiser's first layer cannot be taken apart
    operations = available_operations()
    masses = operations.erfcx(near_wall) - exponent.exp() * operations.erfcx(far_wall)
    return (distance + SHIFT * sigma * operations.expm1(exponent) / masses) * mean.sign()


class TruncatedNormalMean(nn.Module):
    """
    :func:`truncated_normal_mean` for one sigma, as each pass of the sampler needs it: in half of the time.

    For a few rows the number of operations is what costs, and a Python number as a factor costs another one, to make it a
    tensor; as ``alpha`` or ``value`` it costs nothing.

    :param sigma: standard deviation > 0, action units
    """

    one: th.Tensor
    middle: th.Tensor
    far_wall: th.Tensor
    slope: th.Tensor

    def __init__(self, sigma: float):
        super().__init__()
        self.per_unit, self.shift = SQRT_HALF / sigma, SHIFT * sigma
        self.max_distance = 1 + MAX_SIGMAS_OUTSIDE * sigma
        self.sees_far_wall = sigma * FAR_WALL_SIGMAS > 1
        self.sees_furthest_wall = -self.per_unit < FURTHEST_WALL
        constants = {"one": 1.0, "middle": -self.per_unit, "far_wall": 2 * self.per_unit, "slope": -4 * self.per_unit**2}
        for name, value in constants.items():
            self.register_buffer(name, th.tensor(value), persistent=False)

    def forward(self, mean: th.Tensor, operations: Operations = OF_TORCH) -> th.Tensor:
        """
        :param mean: (..., action_dim), may lie outside the box
        :param operations: of :func:`~sb3_dqs.diffusion.special.available_operations`
        :return: (..., action_dim), in [-1, 1] up to rounding
        """
        constants: dict[str, Any] = self._buffers  # as attributes they take longer to look up than to add
        distance = mean.abs().clamp_(max=self.max_distance)
        near_wall = th.add(constants["middle"], distance, alpha=self.per_unit)
        if self.sees_furthest_wall:
            near_wall = near_wall.clamp_(min=FURTHEST_WALL)
        masses = operations.erfcx(near_wall)
        if self.sees_far_wall:
            exponent = distance * constants["slope"]
            masses = th.addcmul(masses, exponent.exp(), operations.erfcx(near_wall + constants["far_wall"]), value=-1)
            distance = operations.addcdiv(distance, operations.expm1(exponent), masses, value=self.shift)
        else:
            distance = operations.addcdiv(distance, constants["one"], masses, value=-self.shift)
        return distance.mul_(mean.sign())


def _mirrored_walls(mean: th.Tensor, sigma: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """
    :return: distance of the mean from the middle of the box, limited by ``MAX_SIGMAS_OUTSIDE``; and how far beyond the near
        and the far wall it lies, in units of sqrt(2) sigma, the argument of erfc (negative: on the inner side)
    """
    per_unit = SQRT_HALF / sigma
    distance = mean.abs().clamp(max=1 + MAX_SIGMAS_OUTSIDE * sigma)
    near_wall = (distance - 1) * per_unit
    return distance, near_wall, near_wall + 2 * per_unit
