"""How does an update run without the host? Recorded once as a CUDA graph, then replayed."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch as th
from torch.utils import _pytree as pytree

Batch = TypeVar("Batch")
Outputs = dict[str, th.Tensor]
Replay = Callable[[], Outputs]

# Calls before the recording: optimisers, cuBLAS and autograd make their own tensors in the first ones.
N_WARM_UP_CALLS = 3


def record_cuda_graph(function: Callable[[], Outputs]) -> Replay:
    """
    Record the kernels that a function launches; nothing is computed.

    :param function: without host synchronisation; its tensors keep their places
    :return: replays the kernels, and returns the same output tensors each time
    :raises RuntimeError: if the function waits for the device
    """
    graph = th.cuda.CUDAGraph()
    with th.cuda.graph(graph):
        outputs = function()

    def replay() -> Outputs:
        graph.replay()
        return outputs

    return replay


class Recording(NamedTuple):
    """
    :param leaves: tensors that the recorded kernels read the batch from
    :param replay: runs the kernels
    """

    leaves: list[Any]
    replay: Replay


class GraphedUpdate(Generic[Batch]):
    """
    An update that is recorded at the first batch of its kind after some warm-up calls, and replayed from then on.

    Everything that changes from call to call must be in tensors that keep their places: the batch is copied to such, the
    learning rate is :attr:`learning_rate`, random numbers come from the device's generator. Each warm-up call is an
    ordinary update. Where recording fails, all calls stay ordinary and one warning says why.

    :param update: maps a batch, any nesting of tensors, and a flag to scalars
    :param device: of the tensors
    :param record: makes a function that replays what a function without arguments does
    """

    def __init__(
        self,
        update: Callable[[Batch, bool], Outputs],
        device: th.device,
        record: Callable[[Callable[[], Outputs]], Replay] = record_cuda_graph,
    ):
        self.update, self.record = update, record
        self.learning_rate = th.zeros((), device=device)
        self.is_possible = device.type == "cuda" or record is not record_cuda_graph
        if not self.is_possible:
            warnings.warn(f"use_cuda_graph=True has no effect on {device}: updates run eagerly", stacklevel=2)
        self.forget()

    def forget(self) -> None:
        """Record anew: parameters or states of optimisers have new places."""
        self.recordings: dict[tuple[Any, ...], Recording] = {}
        self.n_calls: dict[tuple[Any, ...], int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recordings": {}, "n_calls": {}}

    def hold_learning_rate(self, optimizers: Sequence[th.optim.Optimizer]) -> None:
        """Move the learning rate of each optimiser, just set as a number, to the tensor that the recording reads."""
        if not self.is_possible:
            return
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                self.learning_rate.fill_(group["lr"])
                group["lr"] = self.learning_rate
                if "capturable" in group:
                    group["capturable"] = self.learning_rate.is_cuda

    def __call__(self, batch: Batch, flag: bool) -> Outputs:
        """
        :param batch: passed to the update
        :param flag: passed to the update; each value has its own recording
        :return: scalars of this call
        """
        if not self.is_possible:
            return self.update(batch, flag)
        leaves, structure = pytree.tree_flatten(batch)
        kind = (flag, *((leaf.shape, leaf.dtype) if isinstance(leaf, th.Tensor) else leaf for leaf in leaves))
        if kind not in self.recordings:
            self.n_calls[kind] = self.n_calls.get(kind, 0) + 1
            if self.n_calls[kind] <= N_WARM_UP_CALLS:
                return self._warm_up(batch, flag)
            own_leaves = [leaf.clone() if isinstance(leaf, th.Tensor) else leaf for leaf in leaves]
            own_batch = pytree.tree_unflatten(own_leaves, structure)
            try:
                self.recordings[kind] = Recording(own_leaves, self.record(lambda: self.update(own_batch, flag)))
            except RuntimeError as error:
                self.is_possible = False
                warnings.warn(f"this update cannot be a CUDA graph and runs eagerly: {error}", stacklevel=2)
                return self.update(batch, flag)
        recording = self.recordings[kind]
        for own_leaf, leaf in zip(recording.leaves, leaves, strict=True):
            if isinstance(leaf, th.Tensor):
                own_leaf.copy_(leaf, non_blocking=True)
        return {name: value.clone() for name, value in recording.replay().items()}

    def _warm_up(self, batch: Batch, flag: bool) -> Outputs:
        """On a stream of its own, as recording does: gradients remember the stream they were made on."""
        if not self.learning_rate.is_cuda:
            return self.update(batch, flag)
        side_stream = th.cuda.Stream()
        side_stream.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(side_stream):
            outputs = self.update(batch, flag)
        th.cuda.current_stream().wait_stream(side_stream)
        return outputs
