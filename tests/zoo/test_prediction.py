"""Does an agent that is only shown take no memory for transitions?"""

import pytest
from rl_zoo3.utils import ALGOS
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqs import DQS
from sb3_dqs.zoo.prediction import agents_only_act

PENDULUM = ("--algo", "dqs", "--env", "Pendulum-v1")
SHOW = {"enjoy": ("--no-render", "--device", "cpu"), "record_video": ()}


@pytest.mark.parametrize("script", list(SHOW))
def test_shown_agent_has_room_for_one_transition(script, zoo, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    settings = ("batch_size:16", "buffer_size:3000", "policy_kwargs:dict(net_arch=[16])")
    assert zoo("train", *PENDULUM, "-n", 10, "--eval-freq", -1, "-params", *settings) == 0
    sizes, initialise = [], ReplayBuffer.__init__

    def recorded(self, buffer_size, *args, **kwargs):
        sizes.append(buffer_size)
        initialise(self, buffer_size, *args, **kwargs)

    monkeypatch.setattr(ReplayBuffer, "__init__", recorded)
    assert DQS.load(zoo.folder / "logs/dqs/Pendulum-v1_1/Pendulum-v1.zip", device="cpu").buffer_size == 3_000
    assert zoo(script, *PENDULUM, "-n", 5, *SHOW[script]) == 0
    assert sizes == [3_000, 1]


def test_user_may_ask_for_another_size_and_the_table_is_put_back(tmp_path):
    memory = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    small = {"buffer_size": 50, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    DQS("MlpPolicy", "Pendulum-v1", **small, **memory).save(tmp_path / "model")
    with agents_only_act("dqs"):
        assert ALGOS["dqs"].load(tmp_path / "model").replay_buffer.buffer_size == 1
        assert not ALGOS["dqs"].load(tmp_path / "model").optimize_memory_usage
        assert ALGOS["dqs"].load(tmp_path / "model", buffer_size=7).replay_buffer.buffer_size == 7
    assert ALGOS["dqs"] is DQS


def test_algorithm_without_a_replay_buffer_stays_as_it_is():
    with agents_only_act("ppo"):
        assert ALGOS["ppo"] is PPO
