"""Does every example run as it stands, with few steps? And does it say what is missing, in one sentence?"""

import runpy
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_dqs import DQS

EXAMPLES = {path.name: path for path in sorted((Path(__file__).parents[2] / "examples").glob("*.py"))}

# Arguments of a short run, and what it prints or leaves
SHORT = {
    "agents.py": (["--env", "Pendulum-v1", "--steps", "110", "--episodes", "1"], "agents/dqs/Pendulum-v1_1/README.md"),
    "checkpoints.py": (["--steps", "120", "--every", "60", "--episodes", "1"], "runs/checkpoints/dqs_120_steps.zip"),
    "dict_and_images.py": (["--steps", "104"], "Mean return over 10"),
    "healthy_and_sick.py": (["--steps", "205"], "runs/healthy_and_sick.png"),
    "her.py": (["--steps", "306", "--episodes", "1"], "Mean return over 1"),
    "own_environment.py": (["--steps", "110"], "20 degrees inside, -10 outside: "),
    "pictures.py": (["--steps", "110"], "runs/pictures/roll_outs.png"),
    "track.py": (["--steps", "110"], "runs/track/wandb/offline-run-"),
    "train.py": (["--steps", "110", "--episodes", "1"], "Return over 1 deterministic episodes"),
}

# Run by the tests of what they show
TESTED_ELSEWHERE = {"deploy.py"}


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """``run("train.py", ...)`` is ``python examples/train.py ...`` in an empty folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    for setting in ("SILENT", "X_DISABLE_META", "X_DISABLE_STATS"):
        monkeypatch.setenv(f"WANDB_{setting}", "true")

    def run_example(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"examples/{name}", *arguments])
        try:
            runpy.run_path(str(EXAMPLES[name]), run_name="__main__")
        finally:
            th.set_num_threads(1)
        return capfd.readouterr().out

    return run_example


def test_no_example_is_left_out():
    assert {*SHORT, *TESTED_ELSEWHERE} == set(EXAMPLES)


@pytest.mark.parametrize("name", SHORT)
def test_example_runs(name, run, tmp_path):
    arguments, trace = SHORT[name]
    output = run(name, *arguments)
    assert trace in output or (tmp_path / trace).is_file()


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_needs_no_extra(name, run, monkeypatch, capfd):
    for module in ("matplotlib", "tqdm", "rich", "gymnasium_robotics", "wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    assert f"python examples/{name}" in capfd.readouterr().out


@pytest.mark.parametrize("name", SHORT)
def test_missing_extra_is_one_sentence(name, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(SystemExit, match=r"^tqdm must be installed for this: pip install 'sb3-dqs\[plots\]'$"):
        run(name, *SHORT[name][0])


def test_images_alone(run):
    assert "Mean return" in run("dict_and_images.py", "--images-only", "--steps", "104")


def test_checkpoints_go_on_where_they_stopped(run, tmp_path):
    run("checkpoints.py", "--steps", "120", "--every", "60", "--episodes", "1")
    folder = tmp_path / "runs/checkpoints"
    # as a kill leaves it: the newest checkpoint has no statistics yet
    (folder / "dqs_vecnormalize_120_steps.pkl").unlink()
    output = run("checkpoints.py", "--steps", "180", "--every", "60", "--episodes", "1")
    # four environments, and SB3 stores a step after its callbacks
    assert "Going on from 60 steps and 14 stored steps per environment" in output
    assert "After 180 steps" in output
    assert {f"dqs_{steps}_steps.zip" for steps in (60, 120, 180)} <= {path.name for path in folder.iterdir()}
    # all done
    assert "After 180 steps" in run("checkpoints.py", "--steps", "180", "--episodes", "1")


def test_agent_has_no_optimisers_and_its_card_loads_it(run, tmp_path):
    command = ["--env", "Pendulum-v1", "--steps", "110", "--episodes", "2"]
    run("agents.py", *command)
    folder = tmp_path / "agents/dqs/Pendulum-v1_1"
    _, parameters, _ = load_from_zip_file(folder / "Pendulum-v1.zip")
    assert [parameters[name]["state"] for name in ("actor.optimizer", "critic.optimizer")] == [{}, {}]

    _, header, card = (folder / "README.md").read_text().split("---\n", 2)
    metric = yaml.safe_load(header)["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert f"| deterministic | {metric} |" in card
    assert f"python examples/agents.py {' '.join(command[:4])} --seed 0 --episodes 2" in card
    # the code of the card, without a screen and for one episode
    (code,) = [block for block in card.split("```") if block.startswith("python\n")]
    shown = code.removeprefix("python\n").replace('"human"', '"rgb_array"').replace("n_eval_episodes=3", "n_eval_episodes=1")
    names: dict = {}
    exec(shown, names)
    model = names["model"]
    assert isinstance(model, DQS)
    env = gym.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    again = DQS.load(folder / "Pendulum-v1.zip", env=env, device="cpu")
    assert np.array_equal(again.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0])
    again.learn(110, reset_num_timesteps=False)
    assert again._n_updates > model._n_updates
