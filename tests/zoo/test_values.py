"""Are numbers taken as numbers, and does a value that cannot be used get a message that names its setting?"""

import os
import re
import subprocess
import sys

import pytest
import yaml
from stable_baselines3 import HerReplayBuffer

from sb3_dqs import DQS
from sb3_dqs.zoo.values import usable_settings, with_numbers
from tests.zoo.processes import ENVIRONMENT, REPOSITORY

PENDULUM = ("--algo", "dqs", "--env", "Pendulum-v1")
REQUIRED = {"n_timesteps": 100, "policy": "MlpPolicy"}


def usable(text, algo="dqs"):
    """The settings that a line of YAML adds to the two that must be there."""
    return usable_settings({**REQUIRED, **yaml.safe_load(text)}, algo, "mine.yml")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-3", 0.001),
        ("1e4", 10_000),
        ("1.0e4", 10_000),
        ("-2E+1", -20),
        (".5e0", 0.5),
        ("1e400", float("inf")),
    ],
)
def test_text_that_is_a_number_becomes_one(text, number):
    found = with_numbers({"a": [text, {"b": text}], "c": (text,)})
    assert found == {"a": [number, {"b": number}], "c": (number,)}
    # whole ones fit where integers are wanted
    assert isinstance(found["c"][0], int) == (number in (10_000, -20))


@pytest.mark.parametrize(
    # numbers without an exponent had quotes, or YAML had read them as such
    "text",
    [
        "001",
        "16",
        "8.",
        "+3",
        "auto",
        "lin_1e-3",
        "",
        "1e",
        "e3",
        ".",
        "0x10",
        "nan",
        "inf",
        "1_000",
        "1 000",
        "dict(a=1)",
        "v1",
    ],
)
def test_other_text_stays_text(text):
    assert with_numbers(text) == text


def test_yaml_really_reads_these_as_text():
    # if a new PyYAML reads YAML 1.2, with_numbers() can go
    assert yaml.safe_load("[1e-3, 1e4, 1.0e4]") == ["1e-3", "1e4", "1.0e4"]


def test_numbers_reach_every_depth_but_not_the_environment():
    found = usable("{learning_rate: 1e-3, policy_kwargs: {optimizer_kwargs: {weight_decay: 1e-4}}, env_kwargs: {g: 1e1}}")
    assert found["learning_rate"] == 0.001
    assert found["policy_kwargs"] == {"optimizer_kwargs": {"weight_decay": 0.0001}}
    assert found["env_kwargs"] == {"g": "1e1"}


def test_whole_numbers_that_the_zoo_works_with_become_integers():
    found = usable("{n_timesteps: 1e3, n_envs: 2.0, frame_stack: 4.0, train_freq: [2.0, episode]}")
    assert [found[name] for name in ("n_timesteps", "n_envs", "frame_stack")] == [1000, 2, 4]
    assert all(isinstance(found[name], int) for name in ("n_timesteps", "n_envs", "frame_stack"))
    assert found["train_freq"] == (2, "episode")
    assert isinstance(found["train_freq"][0], int)


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate: lin_1e-3",
        "normalize: True",
        "normalize: {norm_reward: False}",
        "normalize: 'dict(norm_obs=True)'",
        "policy_kwargs: 'dict(net_arch=[8], activation_fn=nn.ELU)'",
        "replay_buffer_class: HerReplayBuffer",
        "env_wrapper: gymnasium.wrappers.FlattenObservation",
        "env_wrapper: [gymnasium.wrappers.FlattenObservation, {rl_zoo3.wrappers.FrameSkip: {skip: 2}}]",
        "callback: stable_baselines3.common.callbacks.ProgressBarCallback",
        "policy: sb3_dqs.policies.MlpPolicy",
        "{noise_type: normal, noise_std: 0.1}",
        "env_wrapper: null",
        "frame_stack: null",
    ],
)
def test_what_the_zoo_takes_passes_unchanged(text):
    given = yaml.safe_load(text)
    assert {name: usable(text)[name] for name in given} == given


def test_classes_themselves_pass_as_settings_in_python_have_them():
    settings = {**REQUIRED, "replay_buffer_class": HerReplayBuffer, "env_wrapper": object}
    assert usable_settings(settings, "dqs", "mine.py") == settings


UNUSABLE = {
    "n_timesteps: many": "n_timesteps must be an integer >= 1, got 'many'",
    "n_timesteps: 2.5": "n_timesteps must be an integer >= 1, got 2.5",
    "n_timesteps: null": "mine.yml must set n_timesteps",
    "policy: null": "mine.yml must set policy",
    "n_envs: two": "n_envs must be an integer >= 1, got 'two'",
    "n_envs: 0": "n_envs must be an integer >= 1, got 0",
    "frame_stack: 1e-1": "frame_stack must be an integer >= 1, got 0.1",
    "learning_rate: fast": "learning_rate must be a number >= 0, or lin_",
    "learning_rate: lin_fast": "learning_rate must be a number >= 0, or lin_",
    "learning_rate: const_0.1": "learning_rate must be a number >= 0, or lin_",
    "learning_rate: [0.1]": "learning_rate must be a number >= 0, or lin_",
    "learning_rate: -1e-3": "learning_rate must be a number >= 0, or lin_",
    "learning_rate: .nan": "learning_rate must be a number >= 0, or lin_",
    "train_freq: [1.5, step]": "the number of train_freq must be an integer >= 1, got 1.5",
    "train_freq: [1, episodes]": "did you mean 'episode'?",
    "train_freq: [1]": "train_freq must be a number of steps, or a number and a unit",
    "noise_type: pink": "noise_type must be one of",
    "noise_type: normal": "noise_std must be a finite number > 0, got None",
    "{noise_type: normal, noise_std: some}": "noise_std must be a finite number > 0, got 'some'",
    "normalize: 1": "normalize must be a mapping",
    "normalize: 'True'": "normalize must be a mapping",
    "normalize: maybe": "'maybe' cannot be evaluated: name 'maybe' is not defined",
    "policy_kwargs: 'dict(net_arch=[8]'": "cannot be evaluated",
    "policy_kwargs: [8]": "policy_kwargs must be a mapping",
    "monitor_kwargs: 3": "monitor_kwargs must be a mapping",
    "replay_buffer_kwargs: '[1]'": "replay_buffer_kwargs must be a mapping",
    "replay_buffer_class: nn.ReLU": "replay_buffer_class must be a class of replay buffers",
    "replay_buffer_class: dict()": "replay_buffer_class must be a class of replay buffers",
    "policy: MlpPolicyy": "did you mean 'MlpPolicy'?",
    "policy: 3": "policy must be one of",
    "policy: sb3_dqs.policies.MlpPolicyy": "has no 'MlpPolicyy'; did you mean 'MlpPolicy'?",
    "env_wrapper: FlattenObservation": "env_wrapper must be the full name of a class",
    "env_wrapper: 3": "env_wrapper must be the full name of a class",
    "env_wrapper: no_such_module.Wrapper": "No module named 'no_such_module'",
    "env_wrapper: [gymnasium.wrappers.FlattenObservations]": "did you mean 'FlattenObservation'?",
    "env_wrapper: [{gymnasium.wrappers.FlattenObservation: null, skip: 2}]": "each env_wrapper must be one class",
    "callback: gymnasium.wrapper.Foo": "callback 'gymnasium.wrapper.Foo' cannot be imported",
    "frame_stack: 2\nnormalize: true": "frame_stack=2 stacks observations that normalize=True has normalised",
    "vec_env_wrapper: Foo": "vec_env_wrapper must be the full name of a class",
    "temprature: 1.0": "did you mean 'temperature'?",
    "n_timestep: 10": "did you mean 'n_timesteps'?",
    "ent_coef: auto": "its counterpart: temperature",
    "seed: 1": "'seed' is no setting in -params or mine.yml: the zoo fills it in, from options of its command line",
    "noise_std: 0.1": "noise_std=0.1 needs a noise_type, normal or ornstein-uhlenbeck; or leave it out",
    "3: 4": "unknown setting 3",
}


@pytest.mark.parametrize("text", list(UNUSABLE))
def test_value_that_cannot_be_used_is_named(text):
    with pytest.raises(ValueError, match=re.escape(UNUSABLE[text])):
        usable(text)


def test_published_algorithm_has_not_the_settings_of_ours():
    assert usable("n_score_samples: 8", "dqs_paper")
    with pytest.raises(ValueError, match="unknown setting 'cooling_updates' for dqs_paper"):
        usable("cooling_updates: 10", "dqs_paper")


def test_numbers_of_a_settings_file_are_those_of_the_model(zoo):
    (zoo.folder / "mine.yml").write_text(
        "Pendulum-v1:\n  policy: MlpPolicy\n  n_timesteps: 1e2\n  learning_rate: 1e-3\n  learning_starts: 1e4\n"
        "  batch_size: 128.0\n  buffer_size: 1e3\n  n_score_samples: 4.0\n  n_diffusion_steps: 3.0\n  actor_batch_size: 32.0\n"
        "  tau: 1e-2\n  n_envs: 2.0\n  train_freq: [1.0, step]\n"
    )
    assert zoo("train", *PENDULUM, "-conf", "mine.yml", "--eval-freq", -1) == 0
    run = zoo.folder / "logs/dqs/Pendulum-v1_1"
    model = DQS.load(run / "Pendulum-v1.zip", device="cpu")
    assert model.num_timesteps == 100
    assert model.n_envs == 2
    assert model.learning_rate.val == 0.001
    assert (model.learning_starts, model.batch_size, model.buffer_size) == (10_000, 128, 1_000)
    assert (model.n_score_samples, model.n_diffusion_steps, model.actor_batch_size) == (4, 3, 32)
    assert model.tau == 0.01
    # and what the zoo writes down of the run are numbers
    saved = yaml.unsafe_load((run / "Pendulum-v1/config.yml").read_text())
    assert (saved["learning_rate"], saved["learning_starts"], saved["n_envs"]) == (0.001, 10_000, 2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("n_score_samples:8.5", "n_score_samples must be an integer >= 2, got 8.5"),
        ("batch_size:'many'", "batch_size must be an integer >= 1, got 'many'"),
        ("gamma:'most'", "gamma must be a number in [0, 1], got 'most'"),
        ("n_timesteps:'many'", "n_timesteps must be an integer >= 1, got 'many'"),
        ("component_kwargs:{'diffusion': {'sigma_min': 'small'}}", "sigma_min must be a finite number > 0, got 'small'"),
    ],
)
def test_value_of_the_command_line_that_cannot_be_used_is_named(params, message, zoo, capfd):
    assert zoo("train", *PENDULUM, "-n", 10, "-params", params) == 2
    assert message in capfd.readouterr().err


# Whole processes: the exit status and the standard error are what a user sees
REAL = {
    "text for a number": (["-params", "learning_rate:'fast'"], "learning_rate must be a number"),
    "fraction for an integer": (["-params", "batch_size:256.5"], "batch_size must be an integer >= 1, got 256.5"),
    "file": (["-conf", "mine.yml"], "n_envs must be an integer >= 1, got 'two'"),
    "no file": (["-conf", "yours.yml"], "there is no settings file yours.yml"),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", list(REAL))
def test_process_ends_with_status_2_and_no_traceback(case, tmp_path):
    (tmp_path / "mine.yml").write_text("default: {n_timesteps: 1e3, policy: MlpPolicy, n_envs: two}\n")
    arguments, message = REAL[case]
    result = run_process("train", *PENDULUM, "-n", "200", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.integration
def test_process_takes_numbers_as_yaml_and_python_write_them(tmp_path):
    (tmp_path / "mine.yml").write_text(
        "default: {n_timesteps: 1e3, policy: MlpPolicy, learning_rate: 1e-3, batch_size: 64.0}\n"
    )
    params = ("-params", "n_score_samples:8.0", "learning_starts:1e2", "buffer_size:1e3")
    result = run_process("train", *PENDULUM, "-n", "120", "--eval-freq", "-1", "-conf", "mine.yml", *params, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert DQS.load(tmp_path / "logs/dqs/Pendulum-v1_1/Pendulum-v1.zip", device="cpu").batch_size == 64


def run_process(*arguments, cwd):
    environment = {**ENVIRONMENT, "PYTHONPATH": os.fspath(REPOSITORY)}
    command = [sys.executable, "-m", "sb3_dqs", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
