"""
On a GPU: are updates recorded, and do they train, whatever is saved, loaded or copied in between? Skipped without one.

That a recorded update computes what the eager one does is tested on the CPU, in test_graphed.py: on a GPU their random numbers
differ.
"""

import copy

import gymnasium as gym
import pytest
import torch as th

from sb3_dqs import DQS
from sb3_dqs.buffers import DeviceReplayBuffer
from tests.conftest import SMALL, SMALL_PAPER

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")


def learned(use_cuda_graph, **settings):
    model = DQS(
        "MlpPolicy",
        "Pendulum-v1",
        replay_buffer_class=DeviceReplayBuffer,
        use_cuda_graph=use_cuda_graph,
        seed=0,
        device="cuda",
        **settings,
    )
    return model.learn(80)


def assert_recorded(model):
    assert model.graphed_update.can_record
    assert model.graphed_update.recordings


@pytest.mark.parametrize(
    "settings",
    [
        {**SMALL, "policy_delay": 2, "learning_rate": lambda remaining: 1e-3 * remaining},
        {**SMALL, "policy_kwargs": {"net_arch": [16, 16], "optimizer_kwargs": {"foreach": True}}},
        SMALL_PAPER,
    ],
    ids=["box", "foreach", "paper"],
)
def test_updates_are_recorded_and_train_every_weight(settings):
    eager, recorded = learned(False, **settings), learned(True, **settings)
    assert_recorded(recorded)
    assert recorded.logger.name_to_value.keys() == eager.logger.name_to_value.keys()
    untrained = DQS("MlpPolicy", "Pendulum-v1", seed=0, device="cuda", **settings).policy.state_dict()
    for name, value in recorded.policy.state_dict().items():
        if name.endswith("weight"):
            assert not th.equal(value, untrained[name]), name


def test_a_recorded_model_is_saved_loaded_copied_and_goes_on(tmp_path):
    model = learned(True, **SMALL)
    assert_recorded(model)
    copied = copy.deepcopy(model)
    copied.learn(30, reset_num_timesteps=False)
    assert_recorded(copied)
    model.set_parameters(learned(False, **SMALL).get_parameters())
    model.learn(30, reset_num_timesteps=False)
    assert_recorded(model)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = DQS.load(tmp_path / "model", env=gym.make("Pendulum-v1"), device="cuda")
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.observations.is_cuda
    loaded.learn(30, reset_num_timesteps=False)
    assert_recorded(loaded)
    on_the_host = DQS.load(tmp_path / "model", device="cpu")
    observation = on_the_host.observation_space.sample()
    (there, _), (here, _) = (m.predict(observation, deterministic=True) for m in (model, on_the_host))
    assert there == pytest.approx(here, abs=1e-3)
