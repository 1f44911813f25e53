"""
On a GPU: are updates recorded, and do they train, whatever is saved, loaded or copied in between? Skipped without one.

That a recorded update computes what the eager one does is tested on the CPU, in test_cuda_graph.py: on a GPU their random
numbers differ.
"""

import copy

import gymnasium as gym
import pytest
import torch as th

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.gpu import CudaGraphDQS, DeviceReplayBuffer
from tests.conftest import SMALL

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")


class CudaGraphPaperDQS(CudaGraphDQS, PaperDQS):
    """The published algorithm, recorded."""


def made(algorithm, **settings):
    settings = {**SMALL, "replay_buffer_class": DeviceReplayBuffer, **settings}
    return algorithm("MlpPolicy", "Pendulum-v1", seed=0, device="cuda", **settings)


def assert_recorded(model):
    assert model._recordings
    assert all(isinstance(update.graph, th.cuda.CUDAGraph) for update in model._recordings.values())


@pytest.mark.parametrize(
    ("algorithm", "recorded_algorithm", "settings"),
    [
        (DQS, CudaGraphDQS, {"learning_rate": lambda remaining: 1e-3 * remaining}),
        (DQS, CudaGraphDQS, {"policy_kwargs": {"net_arch": [16, 16], "optimizer_kwargs": {"foreach": True}}}),
        (PaperDQS, CudaGraphPaperDQS, {"n_score_samples": 8, "n_diffusion_steps": 5}),
    ],
    ids=["box", "foreach", "paper"],
)
def test_updates_are_recorded_and_train_every_weight(algorithm, recorded_algorithm, settings):
    eager, recorded = (made(each, **settings).learn(80) for each in (algorithm, recorded_algorithm))
    assert_recorded(recorded)
    assert recorded.logger.name_to_value.keys() == eager.logger.name_to_value.keys()
    untrained = made(algorithm, **settings).policy.state_dict()
    for name, value in recorded.policy.state_dict().items():
        if name.endswith("weight"):
            assert not th.equal(value, untrained[name]), name


def test_a_recorded_model_is_saved_loaded_copied_and_goes_on(tmp_path):
    model = made(CudaGraphDQS).learn(80)
    assert_recorded(model)
    copied = copy.deepcopy(model)
    assert_recorded(copied.learn(30, reset_num_timesteps=False))
    model.set_parameters(made(DQS).learn(80).get_parameters())
    assert_recorded(model.learn(30, reset_num_timesteps=False))
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    for algorithm in (DQS, CudaGraphDQS):
        loaded = algorithm.load(tmp_path / "model", env=gym.make("Pendulum-v1"), device="cuda")
        loaded.load_replay_buffer(tmp_path / "buffer")
        assert loaded.replay_buffer.observations.is_cuda
        loaded.learn(30, reset_num_timesteps=False)
    assert_recorded(loaded)
    on_the_host = DQS.load(tmp_path / "model", device="cpu")
    observation = on_the_host.observation_space.sample()
    (there, _), (here, _) = (m.predict(observation, deterministic=True) for m in (model, on_the_host))
    assert there == pytest.approx(here, abs=1e-3)


# the last test: a recording that failed may leave its traces on the device
def test_an_update_that_waits_names_the_remedy():
    class Waiting(CudaGraphDQS):
        def _update_actor(self, *args):
            scalars = super()._update_actor(*args)
            scalars["actor_loss"].item()
            return scalars

    with pytest.raises(RuntimeError, match="then use DQS"):
        made(Waiting).learn(80)
