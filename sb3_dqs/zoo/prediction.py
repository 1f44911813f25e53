"""How is a trained agent loaded that shall only act? With room for one transition: it stores none."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rl_zoo3.utils import ALGOS
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

# What the zoo's scripts give to the off-policy algorithms that they list
MEMORY = {"buffer_size": 1, "optimize_memory_usage": False}


class OnlyActing:
    """
    What the zoo's scripts ask of an algorithm to which they show an agent, without the memory for a replay buffer.

    :param algorithm: off-policy algorithm that trained the agent
    """

    def __init__(self, algorithm: type[OffPolicyAlgorithm]):
        self.algorithm = algorithm

    def load(self, *args: Any, **kwargs: Any) -> OffPolicyAlgorithm:
        return self.algorithm.load(*args, **{**MEMORY, **kwargs})


@contextlib.contextmanager
def agents_only_act(algo: str) -> Iterator[None]:
    """
    While this is open, the zoo loads agents of an off-policy algorithm with a replay buffer of one transition.

    Its ``enjoy`` and ``record_video`` do so for the algorithms that they list, which are some of the zoo's own. With images,
    the buffer of training may not fit into the memory of the machine that shows the agent.

    :param algo: name of the algorithm
    """
    algorithm = ALGOS[algo]
    if issubclass(algorithm, OffPolicyAlgorithm):
        ALGOS[algo] = OnlyActing(algorithm)  # type: ignore[assignment]
    try:
        yield
    finally:
        ALGOS[algo] = algorithm
