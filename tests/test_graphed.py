"""A recorded update is the eager one: recorded without Python, replayed on the CPU operation by operation."""

import pickle
import warnings

import gymnasium as gym
import pytest
import torch as th
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_dqs import DQS
from sb3_dqs.diffusion import estimators
from sb3_dqs.graphed import N_WARM_UP_CALLS, GraphedUpdate
from sb3_dqs.temperature import LogLinearSchedule
from tests.conftest import SMALL, SMALL_PAPER

# What a GPU can only do by waiting for the host, or the host by waiting for the GPU
SYNCHRONISING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")


@pytest.fixture
def autograd_as_on_a_gpu(monkeypatch):
    def value_and_gradient(q_fn, actions):
        return estimators._value_and_gradient_by_autograd(q_fn, actions)

    monkeypatch.setattr(estimators.SmallestOutput, "value_and_gradient", value_and_gradient)


def record_operations(function):
    """As a CUDA graph: the operations with their tensors, and with every number as it was; nothing of Python is left."""
    names = []

    def values():
        outputs = function()
        names[:] = list(outputs)
        return list(outputs.values())

    random_state = th.get_rng_state()
    tensors = [*parameters_and_states(function)]
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


def parameters_and_states(function):
    model = next(cell.cell_contents for cell in function.__closure__ if isinstance(cell.cell_contents, GraphedUpdate)).update
    model = model.__self__
    yield from model.policy.state_dict(keep_vars=True).values()
    yield from model.thermostat.state_dict(keep_vars=True).values()
    for optimizer in (model.actor.optimizer, model.critic.optimizer):
        for state in optimizer.state.values():
            yield from state.values()


def learned(steps, is_graphed, settings, **more):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **settings, **more)
    if is_graphed:
        model.graphed_update = GraphedUpdate(model._update, model.device, record_operations)
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


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert not any(name == forbidden or name.startswith(f"{forbidden}_") for forbidden in SYNCHRONISING), name
        return function(*args, **(kwargs or {}))


@pytest.mark.usefixtures("autograd_as_on_a_gpu")
def test_an_update_never_waits_for_the_device(settings):
    model = learned(40, False, settings)
    batch = model.replay_buffer.sample(16)
    with NoWaiting():
        model._update(batch, True)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            batch.rewards.sum().item()


def test_a_model_with_recordings_saves_loads_and_goes_on(tmp_path):
    model = learned(60, False, SMALL)
    with pytest.warns(UserWarning, match="no effect on cpu: updates run eagerly"):
        asked = DQS("MlpPolicy", "Pendulum-v1", use_cuda_graph=True, seed=0, device="cpu", **SMALL).learn(60)
    for name, value in parameters_of(model).items():
        assert th.equal(parameters_of(asked)[name], value), name
    asked.save(tmp_path / "model.zip")
    with pytest.warns(UserWarning, match="no effect on cpu"):
        loaded = DQS.load(tmp_path / "model.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert loaded.use_cuda_graph
    loaded.learn(30, reset_num_timesteps=False)


@pytest.mark.usefixtures("autograd_as_on_a_gpu")
def test_recordings_are_left_out_of_pickles_and_renewed_with_new_parameters():
    model = learned(40, True, SMALL)
    graphed = model.graphed_update
    assert graphed.recordings
    assert GraphedUpdate.__getstate__(graphed)["recordings"] == {}
    pickle.dumps(graphed.learning_rate)
    model.set_parameters(model.get_parameters())
    assert not graphed.recordings
    assert not graphed.n_calls


def test_each_kind_of_batch_is_recorded_after_its_warm_up():
    recorded = []

    def record(function):
        recorded.append(1)
        return function

    graphed = GraphedUpdate(lambda batch, flag: {"sum": batch["x"].sum() + flag}, th.device("cpu"), record)
    for call in range(N_WARM_UP_CALLS + 2):
        assert graphed({"x": th.full((3,), float(call)), "none": None}, True)["sum"] == 3 * call + 1
    assert len(recorded) == 1
    assert graphed({"x": th.ones(3), "none": None}, False)["sum"] == 3, "another flag has its own warm-up"
    assert graphed({"x": th.ones(4), "none": None}, True)["sum"] == 5, "another shape as well"
    assert len(recorded) == 1


def test_outputs_of_a_replay_are_not_overwritten_by_the_next():
    output = th.zeros(())

    def update(batch, flag):
        return {"sum": output.copy_(batch.sum())}

    graphed = GraphedUpdate(update, th.device("cpu"), lambda function: function)
    results = [graphed(th.full((2,), float(call)), True)["sum"] for call in range(N_WARM_UP_CALLS + 3)]
    assert [result.item() for result in results[-2:]] == [2.0 * (N_WARM_UP_CALLS + 1), 2.0 * (N_WARM_UP_CALLS + 2)]


def test_an_update_that_cannot_be_recorded_goes_on_eagerly_with_one_warning():
    def record(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    graphed = GraphedUpdate(lambda batch, flag: {"sum": batch.sum()}, th.device("cpu"), record)
    for _ in range(N_WARM_UP_CALLS):
        graphed(th.ones(2), True)
    with pytest.warns(UserWarning, match="cannot be a CUDA graph and runs eagerly: operation not permitted"):
        assert graphed(th.ones(2), True)["sum"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graphed(th.ones(2), True)["sum"] == 2
