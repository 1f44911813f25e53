"""Does ``sb3-dqs export`` find the model and its statistics, and say what is missing?"""

import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv

from sb3_dqs import DQS, PaperDQS, command_line
from sb3_dqs.export import command
from sb3_dqs.export.command import described, find_model, is_equivalent, load_model, main, statistics_beside
from sb3_dqs.export.onnx import Comparison
from tests.conftest import SMALL, SMALL_PAPER, RandomEnv
from tests.export.models import IMAGE, VECTOR, trained


@pytest.fixture(scope="module")
def run_of_the_zoo(tmp_path_factory):
    """Folder of a run as rl-zoo3 leaves it, of an environment whose observations are normalised."""
    folder = tmp_path_factory.mktemp("logs") / "dqs" / "sb3_dqs-Room-v0_12"
    model = trained(DQS, "MlpPolicy", VECTOR, {"clip_obs": 7.0}, n_diffusion_steps=4)
    (folder / "sb3_dqs-Room-v0").mkdir(parents=True)
    model.save(folder / "sb3_dqs-Room-v0.zip")
    model.save(folder / "best_model.zip")
    model.get_vec_normalize_env().save(folder / "sb3_dqs-Room-v0" / "vecnormalize.pkl")
    return folder


def test_run_of_the_zoo_is_exported_with_its_statistics(run_of_the_zoo, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sb3-dqs", "export", str(run_of_the_zoo)])
    assert command_line.main() == 0
    output = capsys.readouterr().out
    written = run_of_the_zoo / "sb3_dqs-Room-v0.onnx"
    assert f"{run_of_the_zoo / 'sb3_dqs-Room-v0.zip'} with {run_of_the_zoo / 'sb3_dqs-Room-v0/vecnormalize.pkl'}" in output
    assert f"{written}: 1,000 of 1,000 actions are those of predict() to 1e-05\n" in output
    assert written.is_file()


def test_statistics_of_another_model_are_left_alone(run_of_the_zoo, tmp_path, capsys):
    DQS("MlpPolicy", RandomEnv(VECTOR), **SMALL).save(tmp_path / "robot")
    (tmp_path / "arm").mkdir()
    (tmp_path / "arm" / "config.yml").touch()
    shutil.copy(run_of_the_zoo / "sb3_dqs-Room-v0" / "vecnormalize.pkl", tmp_path / "arm")
    assert main([str(tmp_path / "robot.zip")]) == 0
    assert f"Exporting {tmp_path / 'robot.zip'}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("batch_size", "n_compared"), [("3", "999 of 999"), ("2000", "2,000 of 2,000")])
def test_batch_size_of_the_command_line_is_that_of_the_file(batch_size, n_compared, run_of_the_zoo, tmp_path, capsys):
    assert main([str(run_of_the_zoo), "--batch-size", batch_size, "-o", str(tmp_path / "policy.onnx")]) == 0
    assert f"{n_compared} actions are those of predict() to 1e-05" in capsys.readouterr().out
    (observations,) = onnxruntime.InferenceSession(tmp_path / "policy.onnx").get_inputs()
    assert observations.shape[0] == int(batch_size)


def test_layout_of_images_on_the_command_line_is_that_of_the_file(tmp_path, capsys):
    DQS("CnnPolicy", RandomEnv(IMAGE), buffer_size=10).save(tmp_path / "model")
    for layout, shape in (("last", [36, 40, 3]), ("first", [3, 36, 40])):
        assert main([str(tmp_path / "model.zip"), "--channels", layout, "--batch-size", "2"]) == 0
        (images,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()
        assert images.shape[1:] == shape


def test_actions_of_double_precision_are_exported(tmp_path, capsys):
    DQS("MlpPolicy", RandomEnv(VECTOR, action_dtype=np.float64), **SMALL).learn(40).save(tmp_path / "model")
    assert main([str(tmp_path / "model.zip")]) == 0
    assert "1,000 of 1,000 actions are those of predict() to 1e-05" in capsys.readouterr().out


def test_other_candidates_are_told_with_their_q():
    comparison = Comparison(np.array([0.0, 0.3, 1e-7]), np.array([0.0, 2e-7, 1e-6]), n_candidates=8)
    assert described(comparison) == (
        "2 of 3 actions are those of predict() to 1e-05; the others are other candidates, whose Q differs by 2e-07 of its size"
    )
    assert is_equivalent(comparison).all()


@pytest.mark.parametrize(("q_difference", "n_candidates"), [(0.02, 8), (2e-7, 1)])
def test_a_file_that_does_something_else_is_told_apart(q_difference, n_candidates, tmp_path, monkeypatch, capsys):
    comparison = Comparison(np.array([0.0, 0.3]), np.array([0.0, q_difference]), n_candidates)
    monkeypatch.setattr(command, "compare_with_predict", lambda *args: comparison)
    DQS("MlpPolicy", "Pendulum-v1", **SMALL).save(tmp_path / "model")
    assert main([str(tmp_path / "model")]) == 3
    output = capsys.readouterr().out
    assert "1 of 2 actions are those of predict() to 1e-05; THE OTHERS ARE NOT: they differ by up to 3e-01" in output
    assert f"their Q by {q_difference:.0e} of its size" in output


def test_wide_bounds_of_actions_and_bounds_of_observations_that_are_none_are_no_failure(tmp_path, capsys):
    largest = np.finfo(np.float32).max
    observations = spaces.Box(np.float32([-4.8, -largest, 0.0]), np.float32([4.8, largest, largest]))
    env = RandomEnv(observations, action_dim=2)
    env.action_space = spaces.Box(0.0, 2000.0, (2,))
    DQS("MlpPolicy", env, n_action_candidates=1, **SMALL).save(tmp_path / "model")
    assert main([str(tmp_path / "model")]) == 0
    assert "1,000 of 1,000 actions are those of predict() to 1e-05\n" in capsys.readouterr().out


def test_a_run_is_found_by_its_settings_whatever_the_name_of_its_folder(tmp_path, monkeypatch):
    run = tmp_path / "Room-v0_2_0f-a_7"
    (run / "Room-v0").mkdir(parents=True)
    (run / "Room-v0" / "config.yml").touch()
    DQS("MlpPolicy", "Pendulum-v1", **SMALL).save(run / "Room-v0")
    assert find_model(run) == run / "Room-v0.zip"
    monkeypatch.chdir(run)
    assert find_model(Path(".")) == run.resolve() / "Room-v0.zip"
    (run / "Room-v0" / "vecnormalize.pkl").touch()
    assert statistics_beside(run / "Room-v0.zip") == run / "Room-v0" / "vecnormalize.pkl"


def test_model_and_statistics_are_found(run_of_the_zoo, monkeypatch):
    last, best = run_of_the_zoo / "sb3_dqs-Room-v0.zip", run_of_the_zoo / "best_model.zip"
    assert find_model(run_of_the_zoo) == last
    assert find_model(best) == find_model(best.with_suffix("")) == best
    # beside it lies the folder of its settings, of the same name
    assert last.with_suffix("").is_dir()
    assert find_model(last.with_suffix("")) == last
    assert statistics_beside(last) == statistics_beside(best) == run_of_the_zoo / "sb3_dqs-Room-v0" / "vecnormalize.pkl"
    assert statistics_beside(run_of_the_zoo.parent / "model.zip") is None


def test_model_is_loaded_by_its_own_algorithm(tmp_path):
    memory = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    DQS("MlpPolicy", "Pendulum-v1", **memory, **SMALL).save(tmp_path / "memory")
    env = BitFlippingEnv(n_bits=3, continuous=True, max_steps=3)
    DQS("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, **SMALL).save(tmp_path / "hindsight")
    PaperDQS("MlpPolicy", "Pendulum-v1", **SMALL_PAPER).save(tmp_path / "paper")
    for name, algorithm in (("hindsight", DQS), ("memory", DQS), ("paper", PaperDQS)):
        model = load_model(tmp_path / f"{name}.zip")
        assert type(model) is algorithm
        assert model.predict(model.observation_space.sample(), deterministic=True)[0].shape == model.action_space.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.zip"], "there is no nowhere.zip"),
        (["run_1"], "there is no run_1/run.zip; name one of run_1/best_model.zip"),
        (["sac"], "model must be saved by DQS or PaperDQS, and sac.zip has the policy"),
        (["model", "--batch-size", "0"], "batch_size must be an integer >= 1"),
        (["model", "--vec-normalize", "nowhere.pkl"], "there is no nowhere.pkl"),
        (["model", "--vec-normalize", "text.pkl"], "and text.pkl cannot be read"),
        (["model", "-o", "text.pkl/policy.onnx"], "text.pkl"),
    ],
)
def test_what_cannot_be_exported_is_named_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=1).save("sac")
    DQS("MlpPolicy", "Pendulum-v1", **SMALL).save("model")
    (tmp_path / "text.pkl").write_text("no statistics")
    (tmp_path / "run_1").mkdir()
    DQS("MlpPolicy", "Pendulum-v1", **SMALL).save("run_1/best_model")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("sb3-dqs export: error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_missing_extra_is_named_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    DQS("MlpPolicy", "Pendulum-v1", **SMALL).save("model")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["model.zip"]) == 1
    assert capsys.readouterr().err == (
        "sb3-dqs export: error: onnx must be installed for this: pip install 'sb3-dqs[export]'\n"
    )
