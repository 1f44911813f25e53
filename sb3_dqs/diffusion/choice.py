"""Which of several candidates is the action? One of them at random, by weights that make it a draw of the law."""

import math
from typing import NamedTuple

import torch as th

from sb3_dqs.diffusion.estimators import QFunction
from sb3_dqs.diffusion.reflection import reflected_normal_log_density


class Candidates(NamedTuple):
    """
    One draw from each of n Gaussians, reflected at the walls.

    :param actions: (n, batch, action_dim), in [-1, 1]
    :param means: of the Gaussians, same shape
    :param stds: standard deviations of the Gaussians, same shape, > 0, action units
    """

    actions: th.Tensor
    means: th.Tensor
    stds: th.Tensor

    def mixture_log_density(self) -> th.Tensor:
        """
        :return: (n, batch), of each action under the mixture of all n Gaussians in equal parts, without the constant of the
            normal law
        """
        n_candidates = len(self.actions)
        log_densities = reflected_normal_log_density(self.actions.unsqueeze(1), self.means, self.stds)
        return th.logsumexp(log_densities, dim=1) - math.log(n_candidates)


def choose(candidates: th.Tensor, log_weights: th.Tensor, uniforms: th.Tensor) -> th.Tensor:
    """
    :param candidates: (n, batch, action_dim)
    :param log_weights: (n, batch)
    :param uniforms: (batch,), uniform in [0, 1]
    :return: (batch, action_dim): one of the candidates, with probability proportional to exp(log_weights)
    """
    cumulative = th.softmax(log_weights, dim=0).cumsum(dim=0)
    # the last candidate has what the others leave
    return pick(candidates, (cumulative[:-1] <= uniforms).sum(dim=0))


def pick(candidates: th.Tensor, indices: th.Tensor) -> th.Tensor:
    """
    :param candidates: (n, batch, action_dim)
    :param indices: (batch,), integers in [0, n)
    :return: (batch, action_dim), of each row the candidate of this number
    """
    return candidates.gather(0, indices.view(1, -1, 1).expand(1, -1, candidates.shape[-1])).squeeze(0)


def choose_by_law(candidates: Candidates, q_fn: QFunction, temperature: float | th.Tensor, uniforms: th.Tensor) -> th.Tensor:
    """
    Importance resampling: weights are exp(Q / temperature) over the density of the mixture that the candidates cover together,
    so that neither a mode that many of them lie in, nor a narrow one, counts more than by the law. Exact as n grows, whatever
    the Gaussians are, if they cover the law.
    Source: sampling importance resampling, Rubin, 1987; the weights for one draw of each part: the balance heuristic of Veach
    and Guibas, 1995.

    :param candidates: of these observations
    :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch)
    :param temperature: > 0, in units of Q
    :param uniforms: (batch,), uniform in [0, 1]
    :return: (batch, action_dim), in [-1, 1]
    """
    log_weights = q_fn(candidates.actions) / temperature - candidates.mixture_log_density()
    return choose(candidates.actions, log_weights, uniforms)
