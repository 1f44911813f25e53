"""Does ``sb3-dqs`` do what the zoo's own scripts do, and does a wrong argument get a message rather than a traceback?"""

import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch as th
import yaml
from rl_zoo3.utils import ALGOS
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger

from sb3_dqs import DQS, PaperDQS, command_line
from sb3_dqs.usage import SCRIPTS
from sb3_dqs.zoo.checkpoints import CheckpointCompanions
from sb3_dqs.zoo.settings import settings_path
from tests.zoo.wrappers import FirstOneDiverges

PENDULUM = ("--algo", "dqs", "--env", "Pendulum-v1")
SMALL = ("batch_size:16", "buffer_size:2000", "policy_kwargs:dict(net_arch=[16])")

FIRST_ONE_DIVERGES = """
default: {n_timesteps: 100, policy: MlpPolicy, buffer_size: 1000, env_wrapper: tests.zoo.wrappers.FirstOneDiverges}
"""


def saved_model(folder, run=1, algo="dqs", cls=DQS):
    return cls.load(folder / f"logs/{algo}/Pendulum-v1_{run}/Pendulum-v1.zip", device="cpu")


def test_train_enjoy_and_plots(zoo, capfd):
    # an environment with short episodes and a slash in its name
    goals = ("--env", "sb3_dqs/MultiGoal-v0")
    arguments = (*goals, "-n", 140, "--eval-freq", 70, "--eval-episodes", 2, "-params", *SMALL)
    # two runs: plot_from_file wants several
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
    # matplotlib has no screen here
    assert "the figure is in plot_train.png" in capfd.readouterr().out
    assert (zoo.folder / "plot_train.png").is_file()
    assert zoo("plot_train", "-a", "dqs", "-e", "MultiGoal", "-f", "logs") == 2
    assert "no run has as many episodes as --episode-window" in capfd.readouterr().err
    assert zoo("all_plots", "-a", "dqs", "-e", "MultiGoal", "-f", "logs", "-o", "scores") == 0
    assert zoo("plot_from_file", "-i", "scores.pkl", "-o", "scores.svg", "-l", "DQS") == 0
    assert (zoo.folder / "scores.svg").is_file()


def test_published_algorithm_trains_with_its_own_settings_and_is_shown(zoo, capfd):
    paper = ("--algo", "dqs_paper", "--env", "Pendulum-v1")
    cheap = ("n_score_samples:4", "n_diffusion_steps:3", "actor_batch_size:16")
    assert zoo("train", *paper, "-n", 110, "--eval-freq", -1, "-params", *SMALL, *cheap) == 0
    assert str(settings_path("dqs_paper")) in capfd.readouterr().out
    model = saved_model(zoo.folder, algo="dqs_paper", cls=PaperDQS)
    # what its settings file says of Pendulum-v1, and the published temperature, which only its signature says
    assert (model.learning_starts, model.temperature) == (100, 0.05)
    assert model._n_updates == 10
    assert zoo("enjoy", *paper, "--no-render", "-n", 201, "--device", "cpu") == 0
    assert "Mean reward" in capfd.readouterr().out


def test_settings_of_the_user_win(zoo, capfd):
    (zoo.folder / "mine.yml").write_text("Pendulum-v1: {n_timesteps: 30, policy: MlpPolicy, tau: 0.123, buffer_size: 100}\n")
    assert zoo("train", *PENDULUM, "-conf", "mine.yml", "--eval-freq", -1) == 0
    assert saved_model(zoo.folder).tau == 0.123
    assert str(settings_path()) not in capfd.readouterr().out


def test_continuing_starts_from_the_saved_model_and_its_buffer(zoo):
    arguments = ("--eval-freq", -1, "--save-replay-buffer", "-params", *SMALL)
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
    assert zoo("train", *PENDULUM, "-n", 160, "--eval-freq", -1, "--save-replay-buffer", "-params", *SMALL) == 0
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
    assert zoo("train", *PENDULUM, "-n", 150, *arguments, "-params", *SMALL, "normalize:True") == 0
    run = zoo.folder / "logs/dqs/Pendulum-v1_1"
    assert {path.name for path in run.glob("rl_model_*")} == {"rl_model_60_steps.zip", "rl_model_120_steps.zip"}
    assert (run / "Pendulum-v1/vecnormalize.pkl").is_file()
    assert not list(run.rglob("*.unfinished*"))
    # at the end the zoo saves the whole buffer
    model = DQS.load(run / "rl_model_120_steps.zip", device="cpu")
    model.load_replay_buffer(run / "replay_buffer.pkl")
    assert model.replay_buffer.size() == 150


@pytest.mark.parametrize("keeps_buffer", [True, False])
def test_the_buffer_of_the_last_checkpoint_is_there_where_a_kill_leaves_a_run(keeps_buffer, tmp_path):
    settings = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 1_000, "device": "cpu"}
    companions = CheckpointCompanions(60, str(tmp_path), str(tmp_path / "settings"), keeps_buffer)
    model = DQS("MlpPolicy", "Pendulum-v1", **settings).learn(150, callback=companions)
    assert [path.name for path in tmp_path.iterdir()] == (["replay_buffer.pkl"] if keeps_buffer else [])
    if keeps_buffer:
        model.load_replay_buffer(tmp_path / "replay_buffer.pkl")
        # callbacks are called before the transition of their step is stored
        assert model.replay_buffer.size() == 119


def test_continuing_goes_on_with_the_normalisation_and_keeps_it(zoo):
    arguments = ("--eval-freq", -1, "-params", *SMALL)
    assert zoo("train", *PENDULUM, "-n", 130, *arguments, "normalize:True") == 0
    first = zoo.folder / "logs/dqs/Pendulum-v1_1"
    assert zoo("train", *PENDULUM, "-n", 120, "-i", first / "Pendulum-v1.zip", *arguments) == 0
    # 1 to reset, 130 steps, 1 to reset, 120 steps, beside the small number that SB3's counts begin with
    for run, count in ((1, 131), (2, 252)):
        statistics = pickle.loads((zoo.folder / f"logs/dqs/Pendulum-v1_{run}/Pendulum-v1/vecnormalize.pkl").read_bytes())
        assert statistics.obs_rms.count == pytest.approx(count, abs=1e-3)
    assert zoo("enjoy", *PENDULUM, "--no-render", "-n", 5, "--device", "cpu") == 0


def test_an_agent_of_another_environment_is_not_trained_on(zoo, capfd):
    arguments = ("--eval-freq", -1, "-params", *SMALL)
    assert zoo("train", *PENDULUM, "-n", 30, *arguments) == 0
    agent = zoo.folder / "logs/dqs/Pendulum-v1_1/Pendulum-v1.zip"
    assert zoo("train", "--algo", "dqs", "--env", "MountainCarContinuous-v0", "-n", 30, "-i", agent, *arguments) == 2
    assert "--trained-agent is of another environment. Observation spaces do not match" in capfd.readouterr().err


def test_scores_of_one_run_each_are_not_plotted_from_a_file(zoo, capfd):
    arguments = ("--env", "sb3_dqs/MultiGoal-v0", "-n", 140, "--eval-freq", 70, "--eval-episodes", 2, "-params", *SMALL)
    assert zoo("train", "--algo", "dqs", *arguments) == 0
    assert zoo("all_plots", "-a", "dqs", "-e", "MultiGoal", "-f", "logs", "-o", "scores") == 0
    assert zoo("plot_from_file", "-i", "scores") == 2
    assert "plot_from_file compares several runs, and scores.pkl has one of DQS-logs" in capfd.readouterr().err
    # beside another one of which there are several it is left out
    table = pickle.loads((zoo.folder / "scores.pkl").read_bytes())
    runs = table["MultiGoal"]
    runs["SAC-logs"] = {"last_evals": np.array([0.0, 1.0])}
    (zoo.folder / "both.pkl").write_bytes(pickle.dumps(table))
    assert zoo("plot_from_file", "-i", "both", "-o", "both.svg", "--skip-timesteps") == 2
    assert zoo("plot_from_file", "-i", "both", "-o", "both.svg", "--skip-timesteps", "--skip-keys", "DQS-logs") == 0


def test_checkpoints_keep_the_normalisation_without_a_buffer(zoo, monkeypatch):
    monkeypatch.setattr(FirstOneDiverges, "n_made", FirstOneDiverges.first)
    wrapper = "env_wrapper:'tests.zoo.wrappers.FirstOneDiverges'"
    arguments = ("--eval-freq", -1, "--save-freq", 50, "-params", *SMALL, "normalize:True", wrapper)
    assert zoo("train", *PENDULUM, "-n", 110, *arguments) == 2
    run = zoo.folder / "logs/dqs/Pendulum-v1_1"
    statistics = pickle.loads((run / "Pendulum-v1/vecnormalize.pkl").read_bytes())
    assert statistics.obs_rms.count == pytest.approx(51, abs=1e-3), "of the checkpoint, not those that counted infinity"
    assert np.isfinite(statistics.ret_rms.var)
    assert not (run / "replay_buffer.pkl").exists()
    assert zoo("enjoy", *PENDULUM, "--no-render", "-n", 5, "--device", "cpu", "--load-last-checkpoint") == 0


def test_trials_keep_what_they_do_not_sample_of_the_policy(zoo):
    (zoo.folder / "settings.yml").write_text(
        "default: {n_timesteps: 60, policy: MlpPolicy, buffer_size: 100, learning_starts: 50,"
        " policy_kwargs: 'dict(activation_fn=nn.Tanh, n_critics=3, net_arch=[8])'}\n"
    )
    study = ("-conf", "settings.yml", "--study-name", "tiny", "--eval-freq", -1)
    built = []

    class Noting(DQS):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            built.append(self.policy)

    ALGOS["dqs"] = Noting
    try:
        assert zoo("train", *PENDULUM, "-optimize", "--n-trials", 1, "--n-evaluations", 1, *study) == 0
        assert zoo("train", *PENDULUM, "--trial-id", 0, *study) == 0
        assert zoo("train", *PENDULUM, "--trial-id", 0, *study, "-params", "policy_kwargs:dict(net_arch=[8])") == 0
        beside = (*study, "--study-name", "beside", "-params", "policy_kwargs:dict(n_critics=1)")
        assert zoo("train", *PENDULUM, "-optimize", "--n-trials", 1, "--n-evaluations", 1, *beside) == 0
        assert zoo("train", *PENDULUM, "--trial-id", 0, *beside) == 0
    finally:
        ALGOS["dqs"] = DQS
    trial, again, given, trial_beside, again_beside = built
    assert trial.net_arch == again.net_arch != [8]
    for policy in (trial, again):
        assert (policy.activation_fn, len(policy.critic.q_networks)) == (th.nn.Tanh, 3)
    assert (given.net_arch, given.activation_fn) == ([8], th.nn.ReLU), "what the command line says is all of it"
    for policy in (trial_beside, again_beside):
        assert (policy.activation_fn, len(policy.critic.q_networks)) == (th.nn.ReLU, 1)
    assert trial_beside.net_arch == again_beside.net_arch


def test_study_of_several_trials_and_training_with_one_of_them(zoo, capfd):
    Path("settings.yml").write_text(FIRST_ONE_DIVERGES)
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
    captured = capfd.readouterr()
    assert "reward of environment 0 is not finite" in captured.out
    # a bar for each trial, that of the last one up to its end
    assert "Trial 0: " in captured.err
    assert "130/130" in captured.err.split("Trial 2: ")[-1] or states[2] == "PRUNED"
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
        correlation_time = params["exploration_correlation_time"]
        assert model.exploration_correlation_time == settings["exploration_correlation_time"] == correlation_time
        assert model.temperature == settings["temperature"] == params.get("temperature", "auto")
        assert model.target_entropy == settings["target_entropy"] == params.get("target_entropy", "auto")
        assert model.tau == settings["tau"] == params["tau"]

    study.enqueue_trial({})
    capfd.readouterr()
    assert zoo("train", *PENDULUM, "--trial-id", 3, *study_arguments) == 2
    assert "this trial holds no settings of dqs: it has not begun" in capfd.readouterr().err
    assert zoo("train", *PENDULUM, "--trial-id", 99, *study_arguments) == 2
    assert "study 'tiny' in logs/dqs/studies.log has no trial 99" in capfd.readouterr().err
    assert zoo("train", *PENDULUM, "--trial-id", 0, "--study-name", "tinny") == 2
    assert "no study 'tinny' in logs/dqs/studies.log" in capfd.readouterr().err


def test_bug_is_not_hidden(zoo, monkeypatch):
    def train(self, gradient_steps, batch_size):
        raise ValueError("a bug")

    monkeypatch.setattr(DQS, "train", train)
    with pytest.raises(ValueError, match="a bug"):
        zoo("train", *PENDULUM, "-n", 110, "--eval-freq", -1, "-params", *SMALL)


def test_diverging_environment_gets_a_message(zoo, capfd, monkeypatch):
    monkeypatch.setattr(FirstOneDiverges, "n_made", FirstOneDiverges.first)
    wrapper = "env_wrapper:'tests.zoo.wrappers.FirstOneDiverges'"
    assert zoo("train", *PENDULUM, "-n", 110, "--eval-freq", -1, "-params", *SMALL, "learning_starts:20", wrapper) == 2
    assert "reward of environment 0 is not finite" in capfd.readouterr().err
    # what was learned in sixty steps is not lost
    assert saved_model(zoo.folder).num_timesteps == 61


def test_a_run_that_cannot_go_on_leaves_no_model(zoo, capfd):
    two = (*SMALL, "n_envs:2")
    saving = ("--save-freq", 40, "--save-replay-buffer", "--eval-freq", -1)
    assert zoo("train", *PENDULUM, "-n", 60, *saving, "-params", *two) == 0
    checkpoint = next((zoo.folder / "logs/dqs/Pendulum-v1_1").glob("rl_model_*_steps.zip"))
    assert zoo("train", *PENDULUM, "-n", 60, "-i", checkpoint, "--eval-freq", -1, "-params", *SMALL) == 2
    assert "the replay buffer holds transitions of 2 environments" in capfd.readouterr().err
    assert not (zoo.folder / "logs/dqs/Pendulum-v1_2/Pendulum-v1.zip").exists()


def test_study_without_a_finished_trial_is_named(zoo, capfd, monkeypatch):
    Path("settings.yml").write_text(FIRST_ONE_DIVERGES)
    monkeypatch.setattr(FirstOneDiverges, "n_made", 0)
    tuning = ("-optimize", "--n-trials", 1, "--n-evaluations", 1, "--study-name", "lone", "-conf", "settings.yml")
    assert zoo("train", *PENDULUM, "-n", 130, *tuning) == 2
    assert "study 'lone' has no finished trial to report: all were pruned" in capfd.readouterr().err


def test_process_is_left_as_it_was(zoo):
    before = (sys.argv, optuna.create_study, ALGOS["dqs"])
    assert zoo("train", *PENDULUM, "-n", 10, "--eval-freq", -1, "-params", *SMALL) == 0
    assert zoo("enjoy", *PENDULUM, "--no-render", "-n", 5, "--device", "cpu") == 0
    assert zoo("train", *PENDULUM, "-n", 10, "-params", "tau:2.0") == 2
    assert (sys.argv, optuna.create_study, ALGOS["dqs"]) == before


def test_help(capsys, monkeypatch):
    assert command_line.main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(script in output for script in SCRIPTS)
    monkeypatch.setattr(sys, "argv", ["sb3-dqs"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("sb3_dqs", run_name="__main__", alter_sys=True)
    assert command_line.main() == 0
    # a script is handed on
    monkeypatch.setattr(sys, "argv", ["sb3-dqs", "plot_train", "-a", "dqs", "-e", "Pendulum", "-f", "nowhere"])
    assert command_line.main() == 2
    assert "there is no nowhere/dqs" in capsys.readouterr().err


def test_help_of_a_script_is_the_zoos_and_shows_our_options(zoo, capsys):
    with pytest.raises(SystemExit, match="0"):
        zoo("enjoy", "--help")
    assert "--load-last-checkpoint" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        zoo("train", "--help")
    output = capsys.readouterr().out
    assert output.index("--n-startup-trials") < output.index("--heartbeat-interval")
    assert {"--grace-period", "--max-retries"} <= set(output.split())


def without_the_zoo(program):
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['rl_zoo3'] = None; {program}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(command_line.__file__).parents[1])},
    )


def test_modules_of_the_working_directory_are_found_by_the_installed_command(tmp_path):
    (tmp_path / "custom_envs.py").write_text(
        "from gymnasium.envs.registration import register\n"
        "register('Mine-v0', 'gymnasium.envs.classic_control.pendulum:PendulumEnv', max_episode_steps=50)\n"
    )
    # as a console script runs: the first folder of the search path is that of the script
    program = "import sys; sys.path[0] = '/nowhere'; from sb3_dqs.command_line import main; sys.exit(main())"
    settings = ("-n", "20", "--eval-freq", "-1", "--device", "cpu", "-params", "buffer_size:100")
    result = subprocess.run(
        [sys.executable, "-c", program, "train", "--algo", "dqs", "--env", "Mine-v0", *settings],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(command_line.__file__).parents[1])},
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "logs/dqs/Mine-v0_1/Mine-v0.zip").is_file()


MAIN = "from sb3_dqs.command_line import main; sys.argv = ['sb3-dqs', {!r}]; sys.exit(main())"


@pytest.mark.parametrize("program", [MAIN.format("train"), "import sb3_dqs.zoo"])
def test_missing_zoo_is_named(program):
    result = without_the_zoo(program)
    assert result.returncode == 1
    assert "pip install 'sb3-dqs[zoo]'" in result.stderr
    if "main" in program:
        assert len(result.stderr.splitlines()) == 1


def test_help_needs_no_zoo():
    result = without_the_zoo(MAIN.format("--help"))
    assert (result.returncode, result.stderr) == (0, "")
    assert all(script in result.stdout for script in SCRIPTS)
