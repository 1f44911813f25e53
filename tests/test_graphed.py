"""A recorded update is the eager one: recorded without Python, replayed on the CPU operation by operation."""

import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_dqs import DQS
from sb3_dqs.diffusion import estimators
from sb3_dqs.graphed import N_WARM_UP_CALLS, GraphedUpdate, waits_among
from sb3_dqs.temperature import LogLinearSchedule
from tests.conftest import SMALL, SMALL_PAPER, RandomEnv

# What makes the host wait for a GPU, or copies a number of Python to it
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero", "lift_fresh")


@pytest.fixture
def autograd_as_on_a_gpu(monkeypatch):
    def value_and_gradient(q_fn, actions):
        return estimators._value_and_gradient_by_autograd(q_fn, actions)

    monkeypatch.setattr(estimators.SmallestOutput, "value_and_gradient", value_and_gradient)


class Waits(TorchDispatchMode):
    """Lists the operations that would wait."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put_", "_index_put_impl_") else ()
        if name in WAITING or any(index is not None and index.dtype == th.bool for index in indices):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


class OperationsRecorder:
    """As a CUDA graph: the operations with their tensors, and with every number as it was; nothing of Python is left."""

    def __init__(self, model):
        self.model, self.device = model, model.device

    def warm_up(self, function):
        with Waits() as waits:
            outputs = function()
        return outputs, waits.names

    def record(self, function):
        names = []

        def values():
            outputs = function()
            names[:] = list(outputs)
            return list(outputs.values())

        random_state = th.get_rng_state()
        tensors = self.parameters_and_states()
        before = [tensor.clone() for tensor in tensors]
        graph = make_fx(values)()
        # unlike a CUDA graph, this recording has computed what it recorded
        with th.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        th.set_rng_state(random_state)

        def replay():
            with th.no_grad():
                return dict(zip(names, graph(), strict=True))

        return replay

    def parameters_and_states(self):
        modules = (self.model.policy, self.model.thermostat)
        optimizers = (self.model.actor.optimizer, self.model.critic.optimizer)
        return [
            *(value for module in modules for value in module.state_dict(keep_vars=True).values()),
            *(value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()),
        ]


class EagerRecorder:
    """Recordings are the functions themselves."""

    device = th.device("cpu")

    def __init__(self, waits=()):
        self.waits, self.n_recordings = list(waits), 0

    def warm_up(self, function):
        return function(), self.waits

    def record(self, function):
        self.n_recordings += 1
        return function


def learned(steps, is_graphed, settings, **more):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **settings, **more)
    if is_graphed:
        model.graphed_update = GraphedUpdate(model._update, OperationsRecorder(model))
    return model.learn(steps)


def parameters_of(model):
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


@pytest.mark.usefixtures("autograd_as_on_a_gpu")
@pytest.mark.parametrize(
    ("settings", "more"),
    [
        (SMALL, {"policy_delay": 2, "cooling_updates": 30, "learning_rate": lambda remaining: 1e-2 * remaining}),
        (SMALL, {"temperature": LogLinearSchedule(1.0, 0.01), "policy_delay": 1, "n_steps": 3}),
        (SMALL_PAPER, {"temperature": LogLinearSchedule(1.0, 0.01)}),
    ],
)
def test_replayed_updates_are_the_eager_ones(settings, more):
    eager = learned(60, False, settings, **more)
    replayed = learned(60, True, settings, **more)
    assert len(replayed.graphed_update.recordings) == more.get("policy_delay", 1)
    for name, value in parameters_of(eager).items():
        assert th.allclose(parameters_of(replayed)[name], value, atol=1e-4), name
    assert replayed.thermostat.temperature == pytest.approx(eager.thermostat.temperature.item(), rel=1e-5)
    for name in ("train/critic_loss", "train/actor_loss", "train/temperature"):
        assert replayed.logger.name_to_value[name] == pytest.approx(eager.logger.name_to_value[name], rel=1e-3)


def images():
    return {"policy": "CnnPolicy", "env": RandomEnv(spaces.Box(0, 255, (3, 36, 36), np.uint8))}


def dictionaries():
    # no Discrete: one_hot looks at its values, on the CPU alone
    space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,)), "image": spaces.Box(0, 255, (3, 36, 36), np.uint8)})
    return {"policy": "MultiInputPolicy", "env": RandomEnv(space)}


def vectors():
    return {"policy": "MlpPolicy", "env": "Pendulum-v1"}


@pytest.mark.usefixtures("autograd_as_on_a_gpu")
@pytest.mark.parametrize("settings", [SMALL, SMALL_PAPER], ids=["box", "paper"])
@pytest.mark.parametrize("kind", [vectors, images, dictionaries])
def test_an_update_never_waits_for_the_device(kind, settings):
    model = DQS(**kind(), seed=0, device="cpu", **settings).learn(24)
    batch = model.replay_buffer.sample(16)
    with Waits() as waits:
        model._update(batch, True)
    assert waits.names == []


def test_waiting_is_found():
    with Waits() as waits:
        values = th.arange(4.0)
        values.sum().item()
        values[values > 1]
        th.tensor(2.0)
    assert waits.names == ["_local_scalar_dense", "index", "lift_fresh"]


def test_without_a_gpu_a_warning_says_so_and_the_run_is_the_same(tmp_path):
    with pytest.warns(UserWarning, match="no effect on cpu: updates run eagerly"):
        asked = DQS("MlpPolicy", "Pendulum-v1", use_cuda_graph=True, seed=0, device="cpu", **SMALL).learn(60)
    for name, value in parameters_of(learned(60, False, SMALL)).items():
        assert th.equal(parameters_of(asked)[name], value), name


@pytest.mark.usefixtures("autograd_as_on_a_gpu")
def test_a_recorded_model_is_copied_saved_loaded_and_goes_on(tmp_path):
    model = learned(60, True, SMALL)
    assert model.graphed_update.recordings
    copied = copy.deepcopy(model)
    assert not copied.graphed_update.recordings
    model.save(tmp_path / "model.zip")
    loaded = DQS.load(tmp_path / "model.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert loaded.graphed_update is None
    loaded.learn(30, reset_num_timesteps=False)
    assert isinstance(loaded.actor.optimizer.param_groups[0]["lr"], float)
    assert loaded.actor.optimizer.param_groups[0]["capturable"] is False
    model.set_parameters(model.get_parameters())
    assert not model.graphed_update.recordings, "optimisers have new states"
    assert not model.graphed_update.n_calls
    model.learn(30, reset_num_timesteps=False)
    assert model.graphed_update.recordings


def test_each_kind_of_batch_is_recorded_after_its_warm_up():
    recorder = EagerRecorder()
    graphed = GraphedUpdate(lambda batch, flag: {"sum": batch["x"].sum() + flag}, recorder)
    for call in range(N_WARM_UP_CALLS + 2):
        assert graphed({"x": th.full((3,), float(call)), "none": None}, True)["sum"] == 3 * call + 1
    assert recorder.n_recordings == 1
    assert graphed({"x": th.ones(3), "none": None}, False)["sum"] == 3, "another flag has its own warm-up"
    assert graphed({"x": th.ones(4), "none": None}, True)["sum"] == 5, "another shape as well"
    assert recorder.n_recordings == 1


def test_outputs_of_a_replay_are_not_overwritten_by_the_next():
    output = th.zeros(())

    def update(batch, flag):
        return {"sum": output.copy_(batch.sum())}

    graphed = GraphedUpdate(update, EagerRecorder())
    results = [graphed(th.full((2,), float(call)), True)["sum"] for call in range(N_WARM_UP_CALLS + 3)]
    assert [result.item() for result in results[-2:]] == [2.0 * (N_WARM_UP_CALLS + 1), 2.0 * (N_WARM_UP_CALLS + 2)]


def test_an_update_that_waits_goes_on_eagerly_with_one_warning():
    recorder = EagerRecorder(waits=["called a synchronizing CUDA operation"])
    graphed = GraphedUpdate(lambda batch, flag: {"sum": batch.sum()}, recorder)
    with pytest.warns(UserWarning, match="updates run eagerly: this update waits for the device") as caught:
        sums = [graphed(th.ones(2), True)["sum"].item() for _ in range(N_WARM_UP_CALLS + 2)]
    assert sums == [2.0] * len(sums)
    assert len(caught) == 1
    assert recorder.n_recordings == 0


def test_an_optimiser_may_wait_again_where_nothing_is_recorded():
    parameter = th.nn.Parameter(th.ones(1))
    optimizer = th.optim.Adam([parameter], lr=0.5)
    graphed = GraphedUpdate(lambda batch, flag: {}, EagerRecorder())
    graphed.prepare_optimizers([optimizer])
    assert isinstance(optimizer.param_groups[0]["lr"], th.Tensor)
    optimizer.param_groups[0].update(lr=0.25, capturable=True)
    graphed.can_record = False
    graphed.prepare_optimizers([optimizer])
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["capturable"]) == (0.25, False)


def test_only_operations_that_waited_count_and_other_warnings_are_passed_on():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
        warnings.warn("of the user's extractor", stacklevel=1)
    with pytest.warns(UserWarning, match="extractor") as passed_on:
        waits = waits_among(caught)
    assert waits == ["called a synchronizing CUDA operation (Triggered internally)"]
    assert len(passed_on) == 1


def test_a_recording_that_fails_otherwise_names_the_remedy(monkeypatch):
    def record(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    recorder = EagerRecorder()
    monkeypatch.setattr(recorder, "record", record)
    graphed = GraphedUpdate(lambda batch, flag: {"sum": batch.sum()}, recorder)
    for _ in range(N_WARM_UP_CALLS):
        graphed(th.ones(2), True)
    with pytest.raises(RuntimeError, match=r"pass use_cuda_graph=False\. operation not permitted"):
        graphed(th.ones(2), True)
