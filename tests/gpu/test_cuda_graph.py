"""A recorded update is the eager one: on the CPU, with a tape of operations in place of a CUDA graph."""

import contextlib
import copy
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.crossq.policies import CrossQCritic
from stable_baselines3.common.policies import ContinuousCritic
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from sb3_dqs import DQS, LogLinearSchedule, PaperDQS, critics
from sb3_dqs.gpu import CudaGraphDQS
from sb3_dqs.gpu.cuda_graph import N_WARM_UP_CALLS, let_be_captured
from tests.conftest import SMALL, SMALL_PAPER, RandomEnv

PLAIN = {**SMALL, "tau": 0.005, "policy_kwargs": {"net_arch": [16, 16], "critic_class": ContinuousCritic}}

# What makes the host wait for a GPU, or copies a number of Python to it
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero", "lift_fresh")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(critics, "host_would_wait", lambda values: True)


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


class Tape(TorchDispatchMode):
    """As a CUDA graph: operations, with the places of their tensors and every number as it was. Nothing of Python is left."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, outputs))
        return outputs

    def replay(self):
        with th.no_grad():
            for function, args, kwargs, outputs in self.operations:
                again = function(*args, **kwargs)
                for place, value in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                    # results in place and views are there already
                    if isinstance(place, th.Tensor) and place.data_ptr() != value.data_ptr():
                        place.copy_(value)


@contextlib.contextmanager
def recording(tape, model):
    """Unlike a CUDA graph, a tape has computed what it recorded: afterwards all is as before."""
    optimizers = (model.actor.optimizer, model.critic.optimizer)
    tensors = [
        *(value for module in (model.policy, model.thermostat) for value in module.state_dict(keep_vars=True).values()),
        *(value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()),
    ]
    before, random_state = [tensor.detach().clone() for tensor in tensors], th.get_rng_state()
    with tape:
        yield
    with th.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
    th.set_rng_state(random_state)


class TapedUpdate:
    """What tensordict's module does, as far as the model knows: ordinary calls, then replays on copies of the batch."""

    def __init__(self, update, model):
        self.update, self.model, self.n_calls = update, model, 0

    def __call__(self, batch):
        self.n_calls += 1
        if self.n_calls < N_WARM_UP_CALLS:
            return self.update(batch)
        leaves, structure = tree_flatten(batch)
        if self.n_calls == N_WARM_UP_CALLS:
            outputs = self.update(batch)
            self.leaves = [leaf.clone() if isinstance(leaf, th.Tensor) else leaf for leaf in leaves]
            self.tape = Tape()
            with recording(self.tape, self.model):
                self.outputs = self.update(tree_unflatten(self.leaves, structure))
            return outputs
        for own_leaf, leaf in zip(self.leaves, leaves, strict=True):
            if isinstance(leaf, th.Tensor):
                own_leaf.copy_(leaf)
        self.tape.replay()
        return tree_map(th.clone, self.outputs)


class TapedDQS(CudaGraphDQS):
    """Recorded on the CPU."""

    is_recorded = True

    def _record(self, update):
        return TapedUpdate(update, self)


class TapedPaperDQS(TapedDQS, PaperDQS):
    """The published algorithm, recorded on the CPU."""


def learned(algorithm, settings, steps=60):
    return algorithm("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **settings).learn(steps)


def assert_close(model, other):
    parameters = other.policy.state_dict()
    for name, value in model.policy.state_dict().items():
        assert th.allclose(parameters[name], value, atol=1e-4), name
    assert model.thermostat.value.item() == pytest.approx(other.thermostat.value.item(), rel=1e-5)


def is_replayed(model):
    return [update.n_calls > N_WARM_UP_CALLS for update in model._recordings.values()]


CASES = {
    # all that changes between updates: learning rates, cooling, temperature
    "automatic": (DQS, TapedDQS, {**SMALL, "cooling_updates": 30, "learning_rate": lambda remaining: 1e-2 * remaining}),
    "scheduled": (
        DQS,
        TapedDQS,
        {**SMALL, "temperature": LogLinearSchedule(1.0, 0.01), "policy_delay": 1, "n_steps": 3},
    ),
    # the warm-up of batch renormalisation is over in the middle of the run
    "renormalised": (
        DQS,
        TapedDQS,
        {**SMALL, "policy_kwargs": {**SMALL["policy_kwargs"], "critic_kwargs": {"renorm_warmup_steps": 20}}},
    ),
    "plain": (DQS, TapedDQS, PLAIN),
    "paper": (PaperDQS, TapedPaperDQS, {**SMALL_PAPER, "temperature": LogLinearSchedule(1.0, 0.01)}),
}


@pytest.mark.parametrize("case", CASES)
def test_replayed_updates_are_the_eager_ones(case):
    algorithm, taped_algorithm, settings = CASES[case]
    eager, replayed = learned(algorithm, settings), learned(taped_algorithm, settings)
    assert is_replayed(replayed) == ([True] * (1 if settings.get("policy_delay") == 1 or algorithm is PaperDQS else 2)), (
        "with and without the actor"
    )
    assert_close(replayed, eager)
    for name in ("train/critic_loss", "train/actor_loss", "train/temperature", "train/learning_rate"):
        assert replayed.logger.name_to_value[name] == pytest.approx(eager.logger.name_to_value[name], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", 0.5),
        ("tau", 0.5),
        ("policy_tau", 0.5),
        ("actor_tau", 0.9),
        ("temperature", 0.1),
        ("learning_rate", 1e-2),
        ("batch_size", 8),
        ("actor_batch_size", 4),
    ],
)
def test_settings_of_a_recorded_model_act(name, value):
    settings = PLAIN if name == "tau" else SMALL  # without a target network it is built into the model

    def changed(algorithm):
        model = learned(algorithm, settings, steps=40)
        setattr(model, name, value)
        return model.learn(40, reset_num_timesteps=False)

    eager, replayed = changed(DQS), changed(TapedDQS)
    assert all(is_replayed(replayed)), "recorded again"
    assert_close(replayed, eager)
    unchanged = learned(DQS, settings, steps=40).learn(40, reset_num_timesteps=False)
    with pytest.raises(AssertionError):
        assert_close(eager, unchanged)


def images():
    return {"policy": "CnnPolicy", "env": RandomEnv(spaces.Box(0, 255, (3, 36, 36), np.uint8))}


def dictionaries():
    # no Discrete: one_hot looks at its values, on the CPU alone
    space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,)), "image": spaces.Box(0, 255, (3, 36, 36), np.uint8)})
    return {"policy": "MultiInputPolicy", "env": RandomEnv(space)}


def vectors():
    return {"policy": "MlpPolicy", "env": "Pendulum-v1"}


def waits_of_an_update(model):
    batch = model.replay_buffer.sample(16)
    model.policy.set_training_mode(True)  # as train() does
    with Waits() as waits:
        model._update(batch, True)
    return waits.names


@pytest.mark.parametrize(("algorithm", "settings"), [(DQS, SMALL), (DQS, PLAIN), (PaperDQS, SMALL_PAPER)])
@pytest.mark.parametrize("kind", [vectors, images, dictionaries])
def test_an_update_never_waits_for_the_device(kind, algorithm, settings):
    assert waits_of_an_update(algorithm(**kind(), seed=0, device="cpu", **settings).learn(24)) == []


def test_sb3_contribs_own_batch_renormalisation_waits():
    settings = {**SMALL, "policy_kwargs": {"net_arch": [16, 16], "critic_class": CrossQCritic}}
    assert "_local_scalar_dense" in waits_of_an_update(learned(DQS, settings, steps=24))


def test_waiting_is_found():
    with Waits() as waits:
        values = th.arange(4.0)
        values.sum().item()
        values[values > 1]
        th.tensor(2.0)
    assert waits.names == ["_local_scalar_dense", "index", "lift_fresh"]


def test_without_a_gpu_a_warning_says_so_and_the_run_is_that_of_dqs():
    with pytest.warns(UserWarning, match="CudaGraphDQS records nothing on cpu: updates run as those of DQS"):
        model = learned(CudaGraphDQS, SMALL)
    assert model._recordings == {}
    for name, value in learned(DQS, SMALL).policy.state_dict().items():
        assert th.equal(model.policy.state_dict()[name], value), name


def test_a_recorded_model_is_copied_and_both_go_on():
    model = learned(TapedDQS, SMALL)
    copied = copy.deepcopy(model)
    assert copied._recordings == {}
    state = th.get_rng_state(), np.random.get_state()
    model.learn(40, reset_num_timesteps=False)
    th.set_rng_state(state[0])
    np.random.set_state(state[1])
    copied.learn(40, reset_num_timesteps=False)
    assert all(is_replayed(copied))
    assert copied.critic.optimizer.param_groups[0]["lr"] is copied._learning_rates["critic"]
    assert_close(copied, model)


def test_a_file_of_a_recorded_model_is_one_of_dqs(tmp_path):
    model = learned(TapedDQS, SMALL)
    model.save(tmp_path / "model.zip")
    loaded = DQS.load(tmp_path / "model.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert not {"_recordings", "_learning_rates"} & set(vars(loaded))
    for optimizer in (loaded.actor.optimizer, loaded.critic.optimizer):
        assert isinstance(optimizer.param_groups[0]["lr"], float)
        assert optimizer.param_groups[0]["capturable"] is False
    loaded.learn(30, reset_num_timesteps=False)
    loaded.save(tmp_path / "again.zip")
    recorded = TapedDQS.load(tmp_path / "again.zip", env=gym.make("Pendulum-v1"), device="cpu")
    assert all(is_replayed(recorded.learn(40, reset_num_timesteps=False)))


def test_other_parameters_are_recorded_anew():
    model = learned(TapedDQS, SMALL)
    assert model._recordings
    model.set_parameters(model.get_parameters())
    assert model._recordings == {}, "optimisers have new states"
    assert all(is_replayed(model.learn(40, reset_num_timesteps=False)))


def test_steps_that_were_counted_on_the_host_are_counted_on_the_device():
    parameter = th.nn.Parameter(th.ones(1, device="meta"))
    optimizer = th.optim.Adam([parameter])
    optimizer.state[parameter]["step"] = th.tensor(3.0)
    let_be_captured(optimizer, optimizer.param_groups[0])
    assert optimizer.param_groups[0]["capturable"] is True
    assert optimizer.state[parameter]["step"].is_meta


class Failing(TapedDQS):
    def _record(self, update):
        def fail(batch):
            raise RuntimeError("operation not permitted when stream is capturing")

        return fail


def test_an_update_that_cannot_be_recorded_names_the_remedy():
    with pytest.raises(RuntimeError, match=r"update of Failing failed.*then use DQS\. operation not permitted"):
        learned(Failing, SMALL)


def test_without_tensordict_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensordict", None)
    monkeypatch.setitem(sys.modules, "tensordict.nn", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3-dqs\[gpu\]'"):
        CudaGraphDQS("MlpPolicy", "Pendulum-v1", device="cpu", **SMALL)._record(lambda batch: {})


class NoStream:
    def __init__(self, device):
        pass

    def wait_stream(self, stream):
        pass


class Cudaless(TapedDQS):
    """Recorded by tensordict's own module."""

    _record = CudaGraphDQS._record


def test_tensordicts_module_records_and_replays_updates(monkeypatch):
    cudagraphs = pytest.importorskip("tensordict.nn.cudagraphs")
    model = Cudaless("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **SMALL)

    def copied(leaf):
        return leaf.clone() if isinstance(leaf, th.Tensor) else leaf

    # it takes tensors on a GPU alone
    monkeypatch.setattr(cudagraphs.CudaGraphModule, "_check_device_and_clone", staticmethod(copied))
    for name, stand_in in {
        "is_available": lambda: True,
        "Stream": NoStream,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": NoStream,
        "synchronize": lambda device: None,
        "CUDAGraph": Tape,
        "graph": lambda tape, stream: recording(tape, model),
    }.items():
        monkeypatch.setattr(th.cuda, name, stand_in)
    model.learn(60)
    assert [len(update.graph.operations) > 100 for update in model._recordings.values()] == [True, True]
    assert_close(model, learned(DQS, SMALL))
