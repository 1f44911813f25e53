"""How does an update run without the host? Recorded once as a CUDA graph, then replayed."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch as th
from torch.utils import _pytree as pytree

Batch = TypeVar("Batch")
Outputs = dict[str, th.Tensor]
Replay = Callable[[], Outputs]

# Calls before the recording: optimisers, cuBLAS and autograd make their own tensors in the first ones.
N_WARM_UP_CALLS = 3


class Recorder(Protocol):
    """Runs functions without arguments, and makes recordings of them."""

    device: th.device

    def warm_up(self, function: Replay) -> tuple[Outputs, list[str]]:
        """
        :return: what the function returns, and what in it waited for the device
        """

    def record(self, function: Replay) -> Replay:
        """
        Record without computing anything.

        :return: does again what the function does, with the tensors and numbers of now, and returns the same tensors each time
        """


class CudaRecorder:
    """
    Recordings are CUDA graphs.

    :param device: a CUDA device
    """

    def __init__(self, device: th.device):
        self.device = device
        # gradients remember the stream they were made on: warm-up and recording share one
        self.stream = th.cuda.Stream(device)

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaRecorder, (self.device,)

    def warm_up(self, function: Replay) -> tuple[Outputs, list[str]]:
        current_stream = th.cuda.current_stream(self.device)
        self.stream.wait_stream(current_stream)
        debug_mode = th.cuda.get_sync_debug_mode()
        with th.cuda.stream(self.stream), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            th.cuda.set_sync_debug_mode("warn")
            try:
                outputs = function()
            finally:
                th.cuda.set_sync_debug_mode(debug_mode)
        current_stream.wait_stream(self.stream)
        return outputs, waits_among(caught)

    def record(self, function: Replay) -> Replay:
        graph = th.cuda.CUDAGraph()
        with th.cuda.device(self.device), th.cuda.graph(graph, stream=self.stream):
            outputs = function()

        def replay() -> Outputs:
            with th.cuda.device(self.device):
                graph.replay()
            return outputs

        return replay


def waits_among(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """
    :param caught: warnings of an update, under PyTorch's debug mode of synchronisation
    :return: texts of those about an operation that waited; the others are raised anew, but for the mode's notice about itself
    """
    waits = []
    for warning in caught:
        text = str(warning.message)
        if "called a synchronizing CUDA operation" in text:
            waits.append(text)
        elif "ynchronization debug mode" not in text:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return waits


def let_wait(group: dict[str, Any]) -> None:
    """
    Allow an optimiser to wait for the device again, as it may outside of a recording.

    :param group: of its parameters
    """
    if "capturable" in group:
        group["capturable"] = False


class Recording(NamedTuple):
    """
    :param leaves: tensors that the recorded operations read the batch from
    :param replay: runs the operations
    """

    leaves: list[Any]
    replay: Replay


class GraphedUpdate(Generic[Batch]):
    """
    An update that is recorded at the first batch of its kind after some warm-up calls, and replayed from then on.

    Everything that changes from call to call must be in tensors that keep their places: the batch is copied to such, the
    learning rates are in :meth:`prepare_optimizers`'s tensors, random numbers come from the device's generator. Each warm-up
    call is an ordinary update. An update that waits for the device cannot be recorded: a warning says why, and all calls
    stay ordinary.

    :param update: maps a batch, any nesting of tensors, and a flag to scalars
    :param recorder: makes the recordings
    """

    def __init__(self, update: Callable[[Batch, bool], Outputs], recorder: Recorder):
        self.update, self.recorder = update, recorder
        self.learning_rates: dict[int, th.Tensor] = {}
        self.can_record = True
        self.forget()

    def forget(self) -> None:
        """Record anew: parameters or states of optimisers have new places."""
        self.recordings: dict[tuple[Any, ...], Recording] = {}
        self.n_calls: dict[tuple[Any, ...], int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recordings": {}, "n_calls": {}}

    def prepare_optimizers(self, optimizers: Iterable[th.optim.Optimizer]) -> None:
        """
        Let a recording read the learning rates, just set as numbers, from tensors that keep their places.

        :param optimizers: always the same ones, in the same order
        """
        groups = [(optimizer, group) for optimizer in optimizers for group in optimizer.param_groups]
        for index, (optimizer, group) in enumerate(groups):
            if not self.can_record:
                let_wait(group)
                continue
            learning_rate = self.learning_rates.setdefault(index, th.zeros((), device=self.recorder.device))
            learning_rate.fill_(group["lr"])
            group["lr"] = learning_rate
            if "capturable" in group and learning_rate.is_cuda and not group["capturable"]:
                group["capturable"] = True
                # an optimiser that is not capturable may have counted its steps on the host
                for parameter in group["params"]:
                    state = optimizer.state.get(parameter, {})
                    if "step" in state:
                        state["step"] = state["step"].to(parameter.device)

    def __call__(self, batch: Batch, flag: bool) -> Outputs:
        """
        :param batch: passed to the update
        :param flag: passed to the update; each value has its own recording
        :return: scalars of this call
        :raises RuntimeError: if the recording fails for another reason than waiting for the device
        """
        if not self.can_record:
            return self.update(batch, flag)
        leaves, structure = pytree.tree_flatten(batch)
        kind = (flag, *((leaf.shape, leaf.dtype) if isinstance(leaf, th.Tensor) else leaf for leaf in leaves))
        if kind not in self.recordings:
            self.n_calls[kind] = self.n_calls.get(kind, 0) + 1
            if self.n_calls[kind] <= N_WARM_UP_CALLS:
                return self._warm_up(batch, flag, is_last=self.n_calls[kind] == N_WARM_UP_CALLS)
            own_leaves = [leaf.clone() if isinstance(leaf, th.Tensor) else leaf for leaf in leaves]
            own_batch = pytree.tree_unflatten(own_leaves, structure)
            try:
                self.recordings[kind] = Recording(own_leaves, self.recorder.record(lambda: self.update(own_batch, flag)))
            except RuntimeError as error:
                # The state of the device after a failed recording is not known: no way to go on
                raise RuntimeError(f"the update cannot be a CUDA graph; pass use_cuda_graph=False. {error}") from error
        recording = self.recordings[kind]
        for own_leaf, leaf in zip(recording.leaves, leaves, strict=True):
            if isinstance(leaf, th.Tensor):
                own_leaf.copy_(leaf, non_blocking=True)
        return {name: value.clone() for name, value in recording.replay().items()}

    def _warm_up(self, batch: Batch, flag: bool, is_last: bool) -> Outputs:
        outputs, waits = self.recorder.warm_up(lambda: self.update(batch, flag))
        if waits and is_last:
            self.can_record = False
            self.forget()
            reason = f"this update waits for the device. {waits[0]}"
            warnings.warn(f"no CUDA graph, updates run eagerly: {reason}", stacklevel=3)
        return outputs
