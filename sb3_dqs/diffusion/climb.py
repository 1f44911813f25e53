"""What is a better action close by? The best by Q of an action and points uphill of it."""

import torch as th

from sb3_dqs.diffusion.estimators import QFunction, q_values_and_gradients

# The longest stride, action units per coordinate; each shorter one is half as long
LONGEST_STRIDE = 0.8


def climb(q_fn: QFunction, actions: th.Tensor, n_points: int) -> th.Tensor:
    """
    A line search along the signs of the gradient of Q: these point to a corner of the box, where steep laws have their mass.

    Q of what is returned is never below that of the action.
    Source: ours; a line search as in any text on optimisation, with the direction of the fast gradient sign method,
    arXiv:1412.6572.

    :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch), differentiable
    :param actions: (batch, action_dim), in [-1, 1]
    :param n_points: on the line, beside the action itself, >= 1
    :return: (batch, action_dim), in [-1, 1]
    """
    q_values, gradients = q_values_and_gradients(q_fn, actions.unsqueeze(0))
    strides = LONGEST_STRIDE * 0.5 ** th.arange(n_points, dtype=actions.dtype, device=actions.device)
    uphill = (actions + strides[:, None, None] * gradients.sign()).clamp(-1.0, 1.0)
    best = th.cat([q_values, q_fn(uphill)]).argmax(dim=0)
    points = th.cat([actions.unsqueeze(0), uphill])
    return points.gather(0, best[None, :, None].expand(1, -1, actions.shape[1])).squeeze(0)
