"""How is noise turned into an action? Each function here lies beside the algorithm of its source."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch as th

from sb3_dqs.diffusion.noise import GeometricNoise

# Called with the noisy actions that each network pass is given
PassCallback = Callable[[th.Tensor], None]


def dpm_solver_pp_2m(
    denoiser: Callable[[th.Tensor, float], th.Tensor],
    noisy_actions: th.Tensor,
    sigmas: Sequence[float],
    order: int = 2,
    recentre: bool = False,
) -> th.Tensor:
    """
    Solve the probability-flow ODE of x = a + sigma * noise with the multistep DPM-Solver++.

    One network pass per level. Order 2 in the step of ln sigma; ``order=1`` is DDIM (exponential Euler). The first step
    has no history and is of order 1.
    Source: Lu et al., DPM-Solver++(2M), arXiv:2211.01095, for alpha = 1; our deviation: the denoised action of the last
    level is returned, which is a last step of order 1 to sigma = 0.

    :param denoiser: maps (noisy actions, sigma) to E[a | x], same shape as the noisy actions
    :param noisy_actions: (..., action_dim), at noise level ``sigmas[0]``
    :param sigmas: decreasing noise levels, all > 0
    :param order: 1 or 2
    :param recentre: the noisy actions are noise around 0: move them by the first denoised actions, which at a large sigma
        are the mean of the law, at no further network pass. Noise around 0 instead shifts the sampled law by its standard
        deviation times its mean over sigma.
    :return: (..., action_dim), a value of the denoiser: where that is inside the box, so is the result
    """
    denoised = denoiser(noisy_actions, sigmas[0])
    if recentre:
        noisy_actions = noisy_actions + denoised
    previous_denoised, previous_log_step = denoised, 0.0
    for sigma, next_sigma in itertools.pairwise(sigmas):
        log_step = math.log(sigma / next_sigma)
        extrapolated = denoised
        if order == 2 and previous_log_step > 0:
            extrapolated = th.lerp(previous_denoised, denoised, 1 + log_step / previous_log_step / 2)
        noisy_actions = th.lerp(extrapolated, noisy_actions, next_sigma / sigma)
        previous_denoised, previous_log_step = denoised, log_step
        denoised = denoiser(noisy_actions, next_sigma)
    return denoised


def euler_maruyama(
    score_fn: Callable[[th.Tensor, float], th.Tensor],
    noisy_actions: th.Tensor,
    process: GeometricNoise,
    n_steps: int,
    noise: th.Tensor | None = None,
) -> th.Tensor:
    """
    Integrate the reverse-time SDE from time 1 to 0: x <- x + g^2 score dt + g sqrt(dt) noise.

    Source: the sampler of DQS, arXiv:2410.01312, as in the authors' code; without noise the drift keeps its full g^2, as
    published (the probability-flow ODE would halve it).

    :param score_fn: maps (noisy actions, time) to the score, same shape as the noisy actions
    :param noisy_actions: (batch, action_dim), at time 1
    :param process: the noise process
    :param n_steps: number of equal steps of time, >= 1
    :param noise: (n_steps, batch, action_dim), standard normal, or None for the published evaluation mode
    :return: (batch, action_dim), not confined to the box
    """
    time_step = 1 / n_steps
    for step in range(n_steps):
        time = 1 - step * time_step
        coefficient = process.diffusion_coefficient(time)
        noisy_actions = noisy_actions + coefficient**2 * time_step * score_fn(noisy_actions, time)
        if noise is not None:
            noisy_actions = noisy_actions + coefficient * math.sqrt(time_step) * noise[step]
    return noisy_actions
