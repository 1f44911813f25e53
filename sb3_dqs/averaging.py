"""How does a network follow another one? Running averages of weights: their shares, and the step."""

import torch as th
from torch import nn

# How fast an average forgets its beginning: weights of update t of n count in proportion to about (t / n) ** FORGETTING
FORGETTING = 7


def polynomial_decay_share(n_updates: th.Tensor) -> th.Tensor:
    """
    The share of the newest weights in an average whose reach grows with the number of updates, so that it neither remembers
    how it began nor has to be told how long it will go on: on average it lies a ninth of all updates behind.

    Source: polynomial-decay averaging of Shamir and Zhang, arXiv:1212.1824, with eta = ``FORGETTING``.

    :param n_updates: (), how many weights the average is of, with the newest; at least 1
    :return: (), 1 for the first
    """
    return (FORGETTING + 1) / (n_updates + FORGETTING)


@th.no_grad()
def follow(average: nn.Module, online: nn.Module, share: float | th.Tensor) -> None:
    """
    Move all weights of an average, and the statistics that belong to them, towards those of the network it follows.

    :param average: changed in place
    :param online: of the same architecture
    :param share: of the online network, in (0, 1]
    """
    for theirs, ours in zip(online.parameters(), average.parameters(), strict=True):
        ours.lerp_(theirs, _like(share, ours))
    for statistic, averaged in zip(online.buffers(), average.buffers(), strict=True):
        if averaged.is_floating_point():
            # what both have stays, also where it is infinite, as in a mask
            averaged.copy_(th.where(statistic == averaged, averaged, averaged.lerp(statistic, _like(share, averaged))))
        else:  # a count
            averaged.copy_(statistic)


def _like(share: float | th.Tensor, values: th.Tensor) -> float | th.Tensor:
    # a tensor stays one: in a recorded update a number would be that of the recording
    return share.to(values.dtype) if isinstance(share, th.Tensor) else share
