"""Does ``sb3-dqs`` do what the zoo's own scripts do, and does a wrong argument get a message rather than a traceback?"""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch as th
import yaml
from sqlalchemy.exc import IntegrityError
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger

from sb3_dqs import DQS, command_line, dqs
from sb3_dqs.zoo import storage
from sb3_dqs.zoo.forward import SCRIPTS, main
from sb3_dqs.zoo.settings import settings_path
from tests.zoo.wrappers import FirstOneDiverges

PENDULUM = ("--algo", "dqs", "--env", "Pendulum-v1")
SMALL = ("batch_size:16", "buffer_size:2000", "policy_kwargs:dict(net_arch=[16])")
# The settings file has 32 regression points for Pendulum-v1, which a batch of 16 does not hold
SMALL_PENDULUM = (*SMALL, "actor_batch_size:16")


def saved_model(folder, run=1, algo="dqs", cls=DQS):
    return cls.load(folder / f"logs/{algo}/Pendulum-v1_{run}/Pendulum-v1.zip", device="cpu")


def test_train_enjoy_and_plots(zoo, capfd):
    # an environment with short episodes and a slash in its name
    goals = ("--env", "sb3_dqs/MultiGoal-v0")
    arguments = (*goals, "-n", 140, "--eval-freq", 70, "--eval-episodes", 2, "-params", *SMALL)
    # two runs: rl_zoo3's plot_from_file cannot read the scores of a single one
    assert zoo("train", "--algo", "dqs", *arguments) == 0
    assert zoo("train", "--algo", "dqs", *arguments) == 0
    run = zoo.folder / "logs/dqs/sb3_dqs-MultiGoal-v0_1"
    files = {path.name for path in run.iterdir()}
    assert {"sb3_dqs-MultiGoal-v0.zip", "best_model.zip", "evaluations.npz", "0.monitor.csv"} <= files
    assert str(settings_path()) in capfd.readouterr().out
    assert yaml.unsafe_load((run / "sb3_dqs-MultiGoal-v0/config.yml").read_text())["batch_size"] == 16

    assert zoo("train", "--algo", "sac", *arguments) == 0
    sac = SAC.load(zoo.folder / "logs/sac/sb3_dqs-MultiGoal-v0_1/sb3_dqs-MultiGoal-v0.zip", device="cpu")
    assert sac.batch_size == 16

    # no folder: ours, since there are no pretrained agents to look for
    assert zoo("enjoy", "--algo", "dqs", *goals, "--no-render", "-n", 60, "--device", "cpu") == 0
    assert "Mean reward" in capfd.readouterr().out
    assert zoo("enjoy", "--algo", "dqs", *goals, "--no-render", "-n", 5, "--load-best", "-f", "logs", "--device", "cpu") == 0

    assert zoo("plot_train", "-a", "dqs", "-e", "MultiGoal", "-f", "logs", "-w", 1) == 0
    assert zoo("all_plots", "-a", "dqs", "-e", "MultiGoal", "-f", "logs", "-o", "scores") == 0
    assert zoo("plot_from_file", "-i", "scores.pkl", "-o", "scores.svg", "-l", "DQS") == 0
    assert (zoo.folder / "scores.svg").is_file()


def test_settings_of_the_user_win(zoo, capfd):
    (zoo.folder / "mine.yml").write_text("Pendulum-v1: {n_timesteps: 30, policy: MlpPolicy, tau: 0.123, buffer_size: 100}\n")
    assert zoo("train", *PENDULUM, "-conf", "mine.yml", "--eval-freq", -1) == 0
    assert saved_model(zoo.folder).tau == 0.123
    assert str(settings_path()) not in capfd.readouterr().out


def test_continuing_starts_from_the_saved_model_and_its_buffer(zoo):
    arguments = ("--eval-freq", -1, "--save-replay-buffer", "-params", *SMALL_PENDULUM)
    assert zoo("train", *PENDULUM, "-n", 200, *arguments) == 0
    assert zoo("train", *PENDULUM, "-n", 150, "-i", "logs/dqs/Pendulum-v1_1/Pendulum-v1.zip", *arguments) == 0
    first, second = saved_model(zoo.folder), saved_model(zoo.folder, run=2)
    # updates go on where they stopped; the zoo counts steps from 0, so that the warm-up of 100 steps comes again
    assert first._n_updates == 100
    assert second._n_updates == 150
    for model, run, n_steps in ((first, 1, 200), (second, 2, 350)):
        model.load_replay_buffer(zoo.folder / f"logs/dqs/Pendulum-v1_{run}/replay_buffer.pkl")
        assert model.replay_buffer.size() == n_steps
    assert np.array_equal(first.replay_buffer.rewards[:200], second.replay_buffer.rewards[:200])


def test_updates_after_loading_are_those_of_the_model_that_was_not_interrupted(zoo):
    # What is left is randomness outside of zip and buffer: the generators' states and the episode that was running
    assert zoo("train", *PENDULUM, "-n", 160, "--eval-freq", -1, "--save-replay-buffer", "-params", *SMALL_PENDULUM) == 0
    run = zoo.folder / "logs/dqs/Pendulum-v1_1"
    uninterrupted = DQS.load(run / "Pendulum-v1.zip", device="cpu")
    uninterrupted.load_replay_buffer(run / "replay_buffer.pkl")
    uninterrupted.set_logger(Logger(None, []))

    def go_on(model):
        th.manual_seed(0)
        np.random.seed(0)
        model.train(gradient_steps=20, batch_size=16)

    go_on(uninterrupted)
    uninterrupted.save(zoo.folder / "stopped")
    uninterrupted.save_replay_buffer(zoo.folder / "stopped_buffer")
    continued = DQS.load(zoo.folder / "stopped", device="cpu")
    continued.load_replay_buffer(zoo.folder / "stopped_buffer")
    continued.set_logger(Logger(None, []))
    go_on(uninterrupted)
    go_on(continued)
    assert continued._n_updates == uninterrupted._n_updates
    for module in ("policy", "thermostat"):
        expected, found = getattr(uninterrupted, module).state_dict(), getattr(continued, module).state_dict()
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert th.equal(value, found[name]), name


def test_checkpoints_keep_the_buffer_and_the_normalisation(zoo):
    arguments = ("--eval-freq", -1, "--save-freq", 60, "--save-replay-buffer")
    assert zoo("train", *PENDULUM, "-n", 150, *arguments, "-params", *SMALL_PENDULUM, "normalize:True") == 0
    run = zoo.folder / "logs/dqs/Pendulum-v1_1"
    assert {path.name for path in run.glob("rl_model_*")} == {"rl_model_60_steps.zip", "rl_model_120_steps.zip"}
    assert (run / "Pendulum-v1/vecnormalize.pkl").is_file()
    assert not list(run.rglob("*.unfinished*"))
    # where a kill leaves a run, the files are those of the last checkpoint; at the end the zoo saves the whole buffer
    model = DQS.load(run / "rl_model_120_steps.zip", device="cpu")
    model.load_replay_buffer(run / "replay_buffer.pkl")
    assert model.replay_buffer.size() == 150


def test_study_of_several_trials_and_training_with_one_of_them(zoo, capfd):
    (zoo.folder / "settings.yml").write_text(
        "default: {n_timesteps: 100, policy: MlpPolicy, buffer_size: 1000, env_wrapper: tests.zoo.wrappers.FirstOneDiverges}\n"
    )
    FirstOneDiverges.n_made = 0
    study_arguments = ("--study-name", "tiny", "-conf", "settings.yml")
    # the zoo's parser takes abbreviations: --optimize too
    tuning = ("--optimize", "--n-trials", 3, "--n-evaluations", 2, "--n-startup-trials", 1, "--pruner", "median")
    assert zoo("train", *PENDULUM, "-n", 130, *tuning, *study_arguments) == 0

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("logs/dqs/studies.log"))
    study = optuna.load_study(storage=storage, study_name="tiny")
    states = [trial.state.name for trial in study.trials]
    # the first diverges: our ValueError prunes it, and the study goes on
    assert len(states) == 3
    assert states[0] == "PRUNED"
    assert "COMPLETE" in states
    assert "is not finite at update" in capfd.readouterr().out
    assert all(trial.user_attrs["n_timesteps"] == 130 for trial in study.trials)

    # trial 0 too, which the zoo itself takes for no trial
    for run, number in enumerate((0, study.best_trial.number), start=2):
        assert zoo("train", *PENDULUM, "-n", 101, "--eval-freq", -1, "--trial-id", number, *study_arguments) == 0
        settings = yaml.unsafe_load((zoo.folder / f"logs/dqs/Pendulum-v1_{run}/Pendulum-v1/config.yml").read_text())
        model, params = saved_model(zoo.folder, run), study.trials[number].params
        assert model.gamma == settings["gamma"] == 1 - params["one_minus_gamma"]
        assert model.learning_rate.val == settings["learning_rate"] == params["learning_rate"]
        assert model.n_score_samples == settings["n_score_samples"] == 2 ** params["n_score_samples_pow"]
        assert model.actor_batch_size == settings["actor_batch_size"] == 2 ** params["actor_batch_size_pow"]
        assert model.score_estimator == settings["score_estimator"] == params["score_estimator"]
        assert model.temperature == settings["temperature"] == params.get("temperature", "auto")
        assert model.target_entropy == settings["target_entropy"] == params.get("target_entropy", "auto")
        assert model.tau == settings["tau"] == params["tau"]

    capfd.readouterr()
    assert zoo("train", *PENDULUM, "--trial-id", 99, *study_arguments) == 2
    assert "study 'tiny' in logs/dqs/studies.log has no trial 99" in capfd.readouterr().err
    assert zoo("train", *PENDULUM, "--trial-id", 0, "--study-name", "tinny") == 2
    assert "no study 'tinny' in logs/dqs/studies.log" in capfd.readouterr().err


WRONG = {
    "script": (["trian"], "did you mean 'train'?"),
    "algorithm": (["train", "--algo", "dqz"], "did you mean 'dqs'?"),
    "environment": (["train", "--algo", "dqs", "--env", "Pendulm-v1"], "maybe meant Pendulum-v1?"),
    "setting": (["train", *PENDULUM, "-params", "temprature:1.0"], "did you mean 'temperature'?"),
    "value": (["train", *PENDULUM, "-params", "temperature:-1.0"], "temperature must be a finite number > 0, got -1.0"),
    "text": (["train", *PENDULUM, "-params", "temperature:auto"], "text needs quotes of its own"),
    "settings file": (["train", *PENDULUM, "-conf", "nope.yml"], "nope.yml"),
    "agent": (["enjoy", *PENDULUM], "logs/dqs folder was not found"),
    "continued agent": (["train", *PENDULUM, "-i", "nope.zip"], "must be a valid path to a .zip file"),
    "trial without study": (["train", *PENDULUM, "--trial-id", "1"], "--trial-id needs the --study-name"),
    "trial without storage": (["train", "--algo", "sac", "--trial-id", "1", "--study-name", "x"], "needs the --storage"),
    "heartbeat": (["train", *PENDULUM, "--heartbeat-interval", "0"], "--heartbeat-interval must be an integer >= 1, got 0"),
    "grace": (["train", *PENDULUM, "--grace-period", "0"], "--grace-period must be an integer >= 1, got 0"),
    "paper": (["train", *PENDULUM, "-optimize", "-params", "diffusion:'paper'"], "searches the settings of diffusion='box'"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_argument_gets_a_message(case, zoo, capfd):
    arguments, message = WRONG[case]
    assert zoo(*arguments) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_missing_database_driver_is_named(zoo, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    storage = ("--storage", "postgresql+psycopg://nobody@localhost/nothing", "--study-name", "x")
    assert zoo("train", *PENDULUM, "-optimize", "-n", 10, *storage) == 2
    assert "pip install 'sb3-dqs[postgres]'" in capfd.readouterr().err


def test_bug_is_not_hidden(zoo, monkeypatch):
    # without its check, the temperature goes to math.log, whose ValueError comes from a line of ours
    monkeypatch.setattr(dqs, "check_positive", lambda *arguments: None)
    with pytest.raises(ValueError, match=r"expected a positive input|math domain error"):
        zoo("train", *PENDULUM, "-n", 10, "--eval-freq", -1, "-params", "temperature:-1.0")


def test_help(capsys, monkeypatch):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(script in output for script in SCRIPTS)
    monkeypatch.setattr(sys, "argv", ["sb3-dqs"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("sb3_dqs.zoo", run_name="__main__")
    assert command_line.main() == 0


def test_help_of_a_script_is_the_zoos(zoo, capsys):
    with pytest.raises(SystemExit, match="0"):
        zoo("enjoy", "--help")
    assert "--load-last-checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["from sb3_dqs.command_line import main; sys.exit(main())", "import sb3_dqs.zoo"])
def test_missing_zoo_is_named(program):
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['rl_zoo3'] = None; {program}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(command_line.__file__).parents[1])},
    )
    assert result.returncode == 1
    assert "pip install 'sb3-dqs[zoo]'" in result.stderr
    if "main" in program:
        assert "Traceback" not in result.stderr


def test_workers_that_create_the_tables_of_a_database_at_once_try_again(tmp_path, monkeypatch):
    attempts = []

    class Refused(storage.RDBStorage):
        def __init__(self, *args, **kwargs):
            attempts.append(1)
            if len(attempts) < 3:
                raise IntegrityError("CREATE TABLE", {}, Exception("already exists"))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(storage, "RDBStorage", Refused)
    monkeypatch.setattr(storage, "TABLE_CREATION_PAUSE", 0)
    database = storage.heartbeat_storage(f"sqlite:///{tmp_path}/study.db", heartbeat_interval=7, max_retries=0)
    assert len(attempts) == 3
    assert database.get_heartbeat_interval() == 7

    attempts.clear()
    monkeypatch.setattr(storage, "TABLE_CREATION_ATTEMPTS", 2)
    with pytest.raises(IntegrityError):
        storage.heartbeat_storage(f"sqlite:///{tmp_path}/study.db")


def test_database_gets_a_heartbeat_and_other_storages_stay_as_they_are(zoo, monkeypatch):
    given = []

    def create_study(*args, storage=None, **kwargs):
        given.append(storage)
        raise KeyboardInterrupt

    for url in ("sqlite:///study.db", "study.log"):
        monkeypatch.setattr(optuna, "create_study", create_study)
        with pytest.raises(KeyboardInterrupt):
            zoo("train", *PENDULUM, "-n", 10, "-optimize", "--storage", url, "--grace-period", 9, "--study-name", "x")
    database, journal = given
    assert database.get_heartbeat_interval() == 60
    assert database.grace_period == 9
    assert isinstance(journal, optuna.storages.JournalStorage)
