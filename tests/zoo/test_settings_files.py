"""Does each entry of the shipped settings say something, and build a model? Is a file of a user's own checked?"""

import argparse
import subprocess
import sys

import gymnasium as gym
import pytest
import yaml
from rl_zoo3.exp_manager import ExperimentManager

from sb3_dqs.zoo.settings import ALGORITHMS, ZOO_SETTINGS, check_setting_names, check_settings_file, settings_path
from sb3_dqs.zoo.values import usable_settings

MUJOCO = ["HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer", "Reacher", "Pusher"]
DM_CONTROL = [
    *("cartpole-balance", "cartpole-swingup", "cheetah-run", "walker-walk", "walker-run"),
    *("finger-turn_hard", "hopper-stand", "quadruped-run", "humanoid-walk", "dog-run"),
]
PROMISED = [
    *("Pendulum-v1", "MountainCarContinuous-v0", "LunarLanderContinuous-v3", "BipedalWalker-v3"),
    *(f"{name}-v{version}" for version in (4, 5) for name in MUJOCO),
    *(f"dm_control/{name}-v0" for name in DM_CONTROL),
    *(f"sb3_dqs/{name}-v0" for name in ("MultiGoal", "Bandit", "GaussianMixture", "PointMaze")),
]

# What an entry may hold beside what it inherits: facts about the environment. A tuned entry is listed here by name.
FACTS = {"n_timesteps", "learning_starts", "env_wrapper"}
# Settings that are no facts about the environment, each for a reason that the file says: Swimmer's speed shows late, as in
# rl-zoo3's own sac.yml, and nothing rewards the mountain car's way to the goal
WITH_A_REASON = {**{f"Swimmer-v{version}": {"gamma"} for version in (4, 5)}, "MountainCarContinuous-v0": {"cooling_updates"}}


def read(algo):
    return yaml.safe_load(settings_path(algo).read_text())


def manager_of(algo, env_id, folder, **settings):
    return ExperimentManager(
        argparse.Namespace(conf_file=None, algo=algo),
        algo,
        env_id,
        str(folder),
        n_timesteps=-1,
        eval_freq=-1,
        hyperparams={"buffer_size": 10, **settings},
        verbose=0,
        device="cpu",
    )


@pytest.mark.parametrize("algo", list(ALGORITHMS))
def test_every_entry_says_something_and_nothing_but_facts(algo):
    entries = read(algo)
    assert next(iter(entries)) == "default"
    assert entries["default"] == {"n_timesteps": 1_000_000, "policy": "MlpPolicy"}
    for env_id, settings in entries.items():
        usable_settings(settings, algo, "this test")
        own = {name for name, value in settings.items() if value != entries["default"].get(name)}
        assert own or env_id == "default", env_id
        assert own <= FACTS | WITH_A_REASON.get(env_id, set()), env_id


def test_warm_up_of_mujoco_is_that_of_the_zoos_own_settings():
    entries = read("dqs")
    for name in ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer"):
        for version in (4, 5):
            assert entries[f"{name}-v{version}"]["learning_starts"] == 10_000


def test_both_algorithms_have_the_same_discounts():
    ours, published = read("dqs"), read("dqs_paper")
    discounts = {name: settings["gamma"] for name, settings in ours.items() if "gamma" in settings}
    assert discounts
    assert {name: settings["gamma"] for name, settings in published.items() if "gamma" in settings} == discounts


def test_published_settings_are_those_of_the_signature():
    # neither file repeats a value of the paper: beside facts there is nothing in them
    assert not {"temperature", "n_score_samples", "n_diffusion_steps"} & {
        name for e in read("dqs_paper").values() for name in e
    }


@pytest.mark.parametrize("algo", list(ALGORITHMS))
@pytest.mark.parametrize("env_id", PROMISED)
def test_environment_builds_a_model_without_a_file_being_named(algo, env_id, tmp_path):
    if env_id not in gym.registry:
        pytest.skip(f"{env_id} is not registered here: its package is not installed")
    try:
        gym.make(env_id).close()
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        pytest.skip(f"{env_id} cannot be made here: {error}")
    # the published algorithm asks 500 times: that its values are in use can be seen without
    manager = manager_of(algo, env_id, tmp_path, **({"n_diffusion_steps": 2} if algo == "dqs_paper" else {}))
    model, saved_settings = manager.setup_experiment()
    entries = read(algo)
    assert type(model) is ALGORITHMS[algo]
    assert manager.n_timesteps == saved_settings["n_timesteps"] == entries.get(env_id, entries["default"])["n_timesteps"]
    action, _ = model.predict(model.env.reset())
    assert model.action_space.contains(action[0])
    model.env.close()


def test_settings_the_zoo_takes_for_itself_are_no_arguments_of_dqs():
    check_setting_names(ZOO_SETTINGS, "dqs", "this test")


def test_unknown_setting_is_named():
    with pytest.raises(ValueError, match="unknown setting 'temprature' for dqs"):
        check_setting_names(["temprature"], "dqs", "this test")


@pytest.mark.parametrize("name", ["verbose", "env"])
def test_what_the_zoo_fills_in_is_no_setting(name):
    with pytest.raises(ValueError, match=f"'{name}' is no setting in -params or this test: the zoo fills it in"):
        check_setting_names([name], "dqs", "this test")


def test_nearest_setting_is_named():
    with pytest.raises(ValueError, match="did you mean 'n_diffusion_steps'"):
        check_setting_names(["n_diffusion_step"], "dqs", "this test")


def test_unknown_settings_file_is_an_error():
    with pytest.raises(ValueError, match="nope"):
        settings_path("nope")


WRONG_FILES = {
    "": "has no entry 'Pendulum-v1' and no entry 'default'",
    "- Pendulum-v1": "has no entry 'Pendulum-v1'",
    "Hopper-v5: {policy: MlpPolicy}": "has no entry 'Pendulum-v1'",
    "Pendulum-v1:": "entry 'Pendulum-v1' of .* must hold settings, .* got None",
    "{default: [policy], Hopper-v5: {policy: MlpPolicy}}": "entry 'default' of .* must hold settings",
    "Pendulum-v1: {policy: [": "mine.yml is not YAML: .* line 1",
}


@pytest.mark.parametrize("text", list(WRONG_FILES))
def test_file_in_which_the_zoo_would_stumble_is_named(text, tmp_path):
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(ValueError, match=WRONG_FILES[text]) as error:
        check_settings_file(str(tmp_path / "mine.yml"), "Pendulum-v1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mine.yml", "mine.yaml", "mine.py"])
@pytest.mark.parametrize("algo", ["dqs", "sac"])
def test_file_that_is_not_there_is_named(algo, name, zoo, capfd):
    assert zoo("train", "--algo", algo, "--env", "Pendulum-v1", "-conf", name) == 2
    assert f"there is no settings file {name}" in capfd.readouterr().err


def test_settings_in_python_are_left_to_the_zoo(zoo):
    settings = "{'n_timesteps': 10, 'policy': 'MlpPolicy', 'buffer_size': 100}"
    (zoo.folder / "mine.py").write_text(f"hyperparams = {{'Pendulum-v1': {settings}}}\n")
    assert zoo("train", "--algo", "dqs", "--env", "Pendulum-v1", "-conf", "mine.py", "--eval-freq", -1) == 0


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
