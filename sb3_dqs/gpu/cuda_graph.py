"""How does an update run without the host? Recorded once as a CUDA graph, then replayed."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import TensorDict

from sb3_dqs.critics import Batch
from sb3_dqs.dqs import DQS, Scalars
from sb3_dqs.extras import install_command
from sb3_dqs.signatures import settings_of

# Updates before the replays begin: optimisers, cuBLAS and autograd make their own tensors in the first ones.
N_WARM_UP_CALLS = 3


class CudaGraphDQS(DQS):
    """
    :class:`~sb3_dqs.dqs.DQS` whose updates are recorded as CUDA graphs and replayed, which spares the host most of its work.

    It needs tensordict, ``pip install 'sb3-dqs[gpu]'``. Settings are those of DQS, and a file saved by either can be loaded by
    the other. Where a setting changes or parameters are loaded, updates are recorded anew. On another device than a GPU they
    run as those of DQS, with a warning. The published algorithm is recorded by ``class CudaGraphPaperDQS(CudaGraphDQS,
    PaperDQS)``, with nothing in it.

    An update that waits for the device cannot be recorded, and raises an error: for instance with sb3-contrib's own
    ``CrossQCritic``, whose ``BatchRenorm`` looks at its number of steps from the host; the default critic does not.
    """

    @property
    def is_recorded(self) -> bool:
        """Whether updates are recorded."""
        return self.device.type == "cuda"

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in settings_of(type(self)):  # in a recording all numbers are as they were
            self._forget_recordings()

    def _forget_recordings(self) -> None:
        # (actor is updated, size of the batch) -> update of such batches
        self._recordings: dict[tuple[bool, int], Callable[[Batch], Scalars]] = {}

    def _setup_model(self) -> None:
        super()._setup_model()
        self._learning_rates = {name: th.zeros((), device=self.device) for name in ("actor", "critic")}

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        if not self.is_recorded:
            warnings.warn(f"{type(self).__name__} records nothing on {self.device}: updates run as those of DQS", stacklevel=4)
        return super()._setup_learn(*args, **kwargs)

    def _update(self, batch: Batch, is_actor_update: bool) -> Scalars:
        if not self.is_recorded:
            return super()._update(batch, is_actor_update)
        self._hold_learning_rates()
        kind = (is_actor_update, len(batch.actions))
        if kind not in self._recordings:
            self._recordings[kind] = self._record(functools.partial(super()._update, is_actor_update=is_actor_update))
        try:
            return self._recordings[kind](batch)
        except RuntimeError as error:
            raise RuntimeError(
                f"an update of {type(self).__name__} failed. One that waits for the device, as with .item() in a features "
                f"extractor or sb3-contrib's BatchRenorm in a critic, cannot be recorded: then use DQS. {error}"
            ) from error

    def _record(self, update: Callable[[Batch], Scalars]) -> Callable[[Batch], Scalars]:
        # Not a recorder of our own: this one has run on GPUs, with updates of SAC and TD3 (LeanRL). It makes the host wait
        # before each replay, which acting does in any case. torch.compile(mode="reduce-overhead") cuts this update into 17
        # graphs (PyTorch 2.13), at zero_grad, at the gradients of Q in the actions and at fused optimisers.
        try:
            from tensordict.nn import CudaGraphModule
        except ImportError as error:
            hint = install_command("tensordict")
            raise ImportError(f"CudaGraphDQS needs tensordict; install it with: {hint}") from error
        return CudaGraphModule(update, warmup=N_WARM_UP_CALLS, device=self.device)  # type: ignore[arg-type]

    def _hold_learning_rates(self) -> None:
        """Let recordings read the learning rates, which ``train()`` sets as numbers, from tensors that keep their places."""
        for name, held in self._learning_rates.items():
            optimizer = getattr(self, name).optimizer
            for group in optimizer.param_groups:
                if group["lr"] is not held:
                    held.fill_(group["lr"])
                    group["lr"] = held
                if held.is_cuda and group.get("capturable") is False:
                    let_be_captured(optimizer, group)

    def get_parameters(self) -> dict[str, dict]:
        """As DQS has them, so that it can load them on any device."""
        parameters = super().get_parameters()
        for name in self._learning_rates:
            for group in parameters[f"{name}.optimizer"]["param_groups"]:
                group["lr"] = float(group["lr"])
                if "capturable" in group:
                    group["capturable"] = False
        return parameters

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        super().set_parameters(load_path_or_dict, exact_match, device)
        self._forget_recordings()  # states of the optimisers have new places

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recordings": {}}  # a copy has its own tensors

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_recordings", "_learning_rates"]


def let_be_captured(optimizer: th.optim.Optimizer, group: dict[str, Any]) -> None:
    """
    Keep an optimiser from looking at its numbers from the host.

    :param optimizer: of parameters on a GPU
    :param group: one of its groups of parameters
    """
    group["capturable"] = True
    # until now it may have counted its steps on the host
    for parameter in group["params"]:
        state = optimizer.state.get(parameter, {})
        if "step" in state:
            state["step"] = state["step"].to(parameter.device)
