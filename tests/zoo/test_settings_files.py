"""Do the shipped settings name every environment that they should, and does each entry build a model?"""

import argparse
import subprocess
import sys

import gymnasium as gym
import pytest
import yaml
from rl_zoo3.exp_manager import ExperimentManager

import sb3_dqs
from sb3_dqs.zoo.settings import ZOO_SETTINGS, check_setting_names, settings_path

MUJOCO = ["HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer", "Reacher", "Pusher"]
DM_CONTROL = [
    *("cartpole-balance", "cartpole-swingup", "cheetah-run", "walker-walk", "walker-run"),
    *("finger-turn_hard", "hopper-stand", "quadruped-run", "humanoid-walk", "dog-run"),
]
PROMISED = [
    *("Pendulum-v1", "MountainCarContinuous-v0", "LunarLanderContinuous-v3", "BipedalWalker-v3"),
    *(f"{name}-v{version}" for version in (4, 5) for name in MUJOCO),
    *(f"dm_control/{name}-v0" for name in DM_CONTROL),
]
FILES = ["dqs", "dqs_paper"]

# What an entry may hold beside what it inherits: facts about the environment. A tuned entry is listed here by name.
FACTS = {"n_timesteps", "env_wrapper", "normalize"}
TUNED = {"dqs": {"Pendulum-v1"}, "dqs_paper": set()}


def read(name):
    return yaml.safe_load(settings_path(name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_default_comes_first_and_every_promised_environment_has_an_entry(name):
    entries = read(name)
    assert next(iter(entries)) == "default"
    own = [env_id for env_id in gym.envs.registry if env_id.startswith("sb3_dqs/")]
    assert own
    assert not {*PROMISED, *own} - {*entries}


@pytest.mark.parametrize("name", FILES)
def test_entries_that_are_not_tuned_inherit_the_default(name):
    entries = read(name)
    for env_id, settings in entries.items():
        check_setting_names(settings, name)
        if env_id not in TUNED[name]:
            assert {key: value for key, value in settings.items() if key not in FACTS} == {
                key: value for key, value in entries["default"].items() if key not in FACTS
            }, env_id


def test_paper_settings_are_the_published_ones():
    assert read("dqs_paper")["default"]["diffusion"] == "paper"
    assert "diffusion" not in read("dqs")["default"]


# dm_control: the entry that the others inherit from, not an environment
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("env_id", [env_id for env_id in read("dqs") if env_id not in ("default", "dm_control")])
def test_entry_builds_a_model(name, env_id, tmp_path):
    if env_id not in gym.envs.registry:
        pytest.skip(f"{env_id} is not registered here: its package is not installed")
    try:
        gym.make(env_id).close()
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        pytest.skip(f"{env_id} cannot be made here: {error}")
    manager = ExperimentManager(
        argparse.Namespace(conf_file=None, algo="dqs"),
        "dqs",
        env_id,
        str(tmp_path),
        n_timesteps=-1,
        eval_freq=-1,
        hyperparams={"buffer_size": 10},
        verbose=0,
        device="cpu",
        config=str(settings_path(name)),
    )
    model, saved_settings = manager.setup_experiment()
    assert isinstance(model, sb3_dqs.DQS)
    assert model.diffusion == ("paper" if name == "dqs_paper" else "box")
    assert manager.n_timesteps == saved_settings["n_timesteps"] == read(name)[env_id]["n_timesteps"]
    action, _ = model.predict(model.env.reset())
    assert model.action_space.contains(action[0])
    model.env.close()


def test_settings_the_zoo_takes_for_itself_are_no_arguments_of_dqs():
    check_setting_names(ZOO_SETTINGS, "this test")


@pytest.mark.parametrize("name", ["temprature", "verbose", "env"])
def test_unknown_setting_is_named(name):
    with pytest.raises(ValueError, match=f"unknown setting '{name}' for dqs"):
        check_setting_names([name], "this test")


def test_nearest_setting_is_named():
    with pytest.raises(ValueError, match="did you mean 'n_diffusion_steps'"):
        check_setting_names(["n_diffusion_step"], "this test")


def test_unknown_settings_file_is_an_error():
    with pytest.raises(ValueError, match="nope"):
        settings_path("nope")


def test_stock_train_works_after_an_import_in_custom_envs(tmp_path):
    (tmp_path / "custom_envs.py").write_text("import sb3_dqs.zoo\n")
    command = [
        "-m",
        "rl_zoo3.train",
        "--algo",
        "dqs",
        "--env",
        "Pendulum-v1",
        "-n",
        "110",
        "--eval-freq",
        "-1",
        "--device",
        "cpu",
    ]
    result = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert str(settings_path()) in result.stdout
    assert (tmp_path / "logs/dqs/Pendulum-v1_1/Pendulum-v1.zip").is_file()
