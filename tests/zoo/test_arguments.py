"""Does a wrong argument get a message rather than a traceback?"""

import sys

import optuna
import pytest

from sb3_dqs.zoo.arguments import prepare

PENDULUM = ("--algo", "dqs", "--env", "Pendulum-v1")
PAPER = ("--algo", "dqs_paper", "--env", "Pendulum-v1")

WRONG = {
    "script": (["trian"], "did you mean 'train'?"),
    "algorithm": (["train", "--algo", "dqz"], "did you mean 'dqs'?"),
    "environment": (["train", "--algo", "dqs", "--env", "Pendulm-v1"], "did you mean 'Pendulum-v1'?"),
    "environment to show": (["enjoy", "--algo", "dqs", "--env", "Pendulm-v1"], "did you mean 'Pendulum-v1'?"),
    "package": (["train", *PENDULUM, "--gym-packages", "no_such_package"], "no_such_package is not installed"),
    "discrete actions": (["train", "--algo", "dqs", "--env", "CartPole-v1"], "DQS needs a bounded Box action space"),
    "value": (["train", *PENDULUM, "-params", "temperature:-1.0"], "temperature must be a finite number > 0, got -1.0"),
    "text": (["train", *PENDULUM, "-params", "temperature:auto"], "text needs quotes of its own"),
    "text of env": (["train", *PENDULUM, "--env-kwargs", "g:ten"], "text needs quotes of its own"),
    "env argument": (
        ["enjoy", *PENDULUM, "--env-kwargs", "gg:9.0"],
        "Pendulum-v1 has no argument 'gg'; did you mean 'g'?",
    ),
    "device": (
        ["train", *PENDULUM, "--device", "gpu0"],
        "--device must be a device of torch, such as cpu or cuda, got 'gpu0'",
    ),
    "no steps": (["train", *PENDULUM, "-n", "0"], "--n-timesteps must be at least 1, got 0; leave it out"),
    "no jobs": (["train", *PENDULUM, "-optimize", "--n-jobs", "0"], "--n-jobs must be at least 1, got 0; 1 is"),
    "no evaluations": (["train", *PENDULUM, "-optimize", "--n-evaluations", "0"], "--n-evaluations must be at least 1, got 0"),
    "no episodes": (["train", *PENDULUM, "--eval-episodes", "0"], "--eval-episodes must be at least 1, got 0; 5 is"),
    "no environments": (["train", *PENDULUM, "--n-eval-envs", "0"], "--n-eval-envs must be at least 1, got 0; 1 is"),
    "no start": (
        ["train", *PENDULUM, "-optimize", "--n-startup-trials", "-1"],
        "--n-startup-trials must be at least 0, got -1",
    ),
    "trial from the end": (
        ["train", *PENDULUM, "--study-name", "x", "--trial-id", "-1"],
        "--trial-id must be at least 0, got -1; Optuna counts trials from 0 on",
    ),
    "nothing to show": (["enjoy", *PENDULUM, "-n", "0"], "--n-timesteps must be at least 1, got 0; 1000 is the default"),
    "none to film": (["record_video", *PENDULUM, "--n-envs", "0"], "--n-envs must be at least 1, got 0; 1 is the default"),
    "no value": (["train", *PENDULUM, "-params", "temperature"], "text needs quotes of its own"),
    "agent": (["enjoy", *PENDULUM], "logs/dqs folder was not found"),
    "published agent": (["enjoy", *PAPER], "logs/dqs_paper folder was not found"),
    "agent to film": (["record_video", *PENDULUM, "-f", "films"], "films/dqs folder was not found"),
    "agent of the zoo to film": (
        ["record_video", "--algo", "sac", "--env", "Pendulum-v1"],
        "rl-trained-agents/sac folder was not",
    ),
    "continued agent": (["train", *PENDULUM, "-i", "nope.zip"], "must be an existing .zip file, got 'nope.zip'"),
    "trial without study": (["train", *PENDULUM, "--trial-id", "1"], "--trial-id needs the --study-name"),
    "trial without storage": (["train", "--algo", "sac", "--trial-id", "1", "--study-name", "x"], "needs the --storage"),
    "storage": (["train", *PENDULUM, "-optimize", "--storage", "study.db"], "--storage must be a file that ends in .log"),
    "database": (["train", *PENDULUM, "-optimize", "--storage", "sqlight:///x"], "--storage must be a file that ends in .log"),
    "heartbeat": (["train", *PENDULUM, "--heartbeat-interval", "0"], "heartbeat_interval must be an integer >= 1, got 0"),
    "grace": (["train", *PENDULUM, "--grace-period", "0"], "grace_period must be an integer >= 1, got 0"),
    "short grace": (
        ["train", *PENDULUM, "--grace-period", "60"],
        "grace_period must be longer than heartbeat_interval, 60 seconds, got 60: trials that are alive would be failed",
    ),
    "retries": (["train", *PENDULUM, "--max-retries", "-1"], "max_retries must be an integer >= 0, got -1"),
    "retries without a search": (
        ["train", *PENDULUM, "--max-retries", "1", "--storage", "sqlite:///study.db"],
        "--max-retries: only with -optimize and a database as --storage; leave it out",
    ),
    "heartbeat of a journal": (
        ["train", *PENDULUM, "-optimize", "--storage", "study.log", "--heartbeat-interval", "9", "--grace-period", "20"],
        "--heartbeat-interval, --grace-period: only with -optimize and a database as --storage",
    ),
    "search of published": (["train", *PAPER, "-optimize"], "none for dqs_paper, whose values are published"),
    "trial of published": (["train", *PAPER, "--trial-id", "1", "--study-name", "x"], "none for dqs_paper"),
    "search of crossq": (["train", "--algo", "crossq", "--env", "Pendulum-v1", "-optimize"], "there is none for crossq"),
    "search of one temperature": (
        ["train", *PENDULUM, "-optimize", "-params", "component_kwargs:{'temperature': {'initial': 1.0}}"],
        "component_kwargs['temperature'] is for one of them",
    ),
    "search of a corrector": (
        ["train", *PENDULUM, "-optimize", "-params", "component_kwargs:{'corrector': {'sigmas': [0.2]}}"],
        "component_kwargs['corrector'] may not fit them; leave it out",
    ),
    "search of another refiner": (
        ["train", *PENDULUM, "-optimize", "-params", "component_kwargs:{'refiner': {'relative_sigma': 0.2}}"],
        "component_kwargs['refiner'] has another relative_sigma",
    ),
    "search of what is given": (
        ["train", *PENDULUM, "-optimize", "-params", "learning_rate:0.01", "policy_kwargs:dict(net_arch=[8], n_critics=3)"],
        "-optimize samples learning_rate, policy_kwargs['net_arch'], so that values in -params would have no effect",
    ),
    "trial of another folder": (
        ["train", *PENDULUM, "-f", "elsewhere", "--study-name", "x", "--trial-id", "7"],
        "no study 'x': there is no file elsewhere/dqs/studies.log",
    ),
    "export": (["exprot"], "did you mean 'export'?"),
    "runs to plot": (["plot_train", "-a", "dqs", "-e", "Pendulum", "-f", "runs"], "there is no runs/dqs"),
    "runs to compare": (["all_plots", "-a", "DQS", "-e", "Pendulum", "-f", "runs"], "there is no runs/dqs"),
    "file to plot": (["plot_from_file", "-iqm", "-i", "scores"], "there is no scores"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_argument_gets_a_message(case, zoo, capfd):
    arguments, message = WRONG[case]
    assert zoo(*arguments) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_model_that_is_not_found_is_told_from_those_that_are_there(zoo, capfd):
    for run, model in (("Pendulum-v1_1", "rl_model_60_steps.zip"), ("Pendulum-v1_2_fa9d", "Pendulum-v1.zip")):
        (zoo.folder / "logs/dqs" / run).mkdir(parents=True)
        (zoo.folder / "logs/dqs" / run / model).touch()
    assert zoo("enjoy", *PENDULUM, "--load-checkpoint", 7) == 2
    message = "in logs/dqs Pendulum-v1_1 has rl_model_60_steps.zip; Pendulum-v1_2_fa9d has Pendulum-v1.zip; rename"
    assert f"{message} Pendulum-v1_2_fa9d to Pendulum-v1_N to ask for it by --exp-id N" in capfd.readouterr().err


@pytest.mark.parametrize(("script", "algo"), [("plot_train", "-a"), ("all_plots", "-a")])
def test_environment_without_a_run_is_named_with_those_that_have_one(script, algo, zoo, capfd):
    (zoo.folder / "logs/dqs/Pendulum-v1_1").mkdir(parents=True)
    assert zoo(script, algo, "dqs", "-e", "Pendulum", "Hopper", "-f", "logs") == 2
    assert (
        "--env must be part of the name of a run of dqs, got 'Hopper'; there are ['Pendulum-v1_1']" in capfd.readouterr().err
    )


def test_runs_that_were_never_evaluated_are_named(zoo, capfd):
    # their mean return would be told as 0.0 +/- 0.0
    (zoo.folder / "logs/dqs/Pendulum-v1_1").mkdir(parents=True)
    assert zoo("all_plots", "-a", "dqs", "-e", "Pendulum", "-f", "logs") == 2
    assert "no run of dqs in Pendulum has been evaluated: train with an --eval-freq" in capfd.readouterr().err


def test_films_are_made_of_environments_that_a_package_registers(zoo, monkeypatch):
    folder = zoo.folder / "own_environments"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import gymnasium\ngymnasium.register(id='Own-v0', entry_point='sb3_dqs.envs:MultiGoalEnv', max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(zoo.folder)
    own = ("--algo", "dqs", "--env", "Own-v0", "--gym-packages", "own_environments")
    small = ("learning_starts:20", "batch_size:8", "buffer_size:100", "policy_kwargs:dict(net_arch=[8])")
    assert zoo("train", *own, "-n", 25, "--eval-freq", -1, "-params", *small) == 0
    forwarded, _ = prepare("record_video", [*own, "-n", "3"])
    assert forwarded == ["--algo", "dqs", "--env", "Own-v0", "-n", "3", "--folder", "logs", "--exp-id", "1"]


def test_abbreviations_are_those_of_the_zoo(zoo, capfd):
    study = ("--study", "mine", "--stor", "sqlite:///mine.db")
    tuning = ("-optimize", "--n-trials", 1, "--n-evaluations", 1, "-params", "buffer_size:100")
    assert zoo("train", *PENDULUM, "-n", 20, *tuning, *study) == 0
    assert "Study" not in capfd.readouterr().out.replace("Loading", ""), "nothing was filled in"
    assert [summary.study_name for summary in optuna.get_all_study_summaries("sqlite:///mine.db")] == ["mine"]
    assert not (zoo.folder / "logs/dqs/studies.log").exists()
    assert zoo("enjoy", *PENDULUM, "--fold", "mine") == 2
    assert "mine/dqs folder was not found" in capfd.readouterr().err


def test_missing_database_driver_is_named(zoo, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    storage = ("--storage", "postgresql+psycopg://nobody@localhost/nothing", "--study-name", "x")
    assert zoo("train", *PENDULUM, "-optimize", "-n", 10, *storage) == 2
    assert "pip install 'sb3-dqs[postgres]'" in capfd.readouterr().err


def test_what_gymnasium_takes_for_an_environment_itself_is_no_wrong_argument(zoo):
    forwarded, _ = prepare("train", [*PENDULUM, "--env-kwargs", "max_episode_steps:50", "g:9.0"])
    assert forwarded == [*PENDULUM, "--env-kwargs", "max_episode_steps:50", "g:9.0"]


def test_database_that_does_not_answer_is_named(zoo, capfd):
    storage = ("--storage", f"sqlite:///{zoo.folder}/nowhere/study.db", "--study-name", "x")
    assert zoo("train", *PENDULUM, "-optimize", "-n", 10, *storage) == 2
    error = capfd.readouterr().err
    assert "the database of --storage does not answer: unable to open database file" in error
    assert "Traceback" not in error


def test_checkpoint_to_show_is_found_by_its_steps(zoo, capfd):
    settings = ("batch_size:16", "buffer_size:2000", "policy_kwargs:dict(net_arch=[16])")
    assert zoo("train", *PENDULUM, "-n", 25, "--save-freq", 10, "--eval-freq", -1, "-params", *settings) == 0
    show = ("enjoy", *PENDULUM, "--no-render", "-n", 3, "--device", "cpu")
    assert zoo(*show, "--load-last-checkpoint") == 0
    assert "rl_model_20_steps.zip" in capfd.readouterr().out
    assert zoo(*show, "--load-checkpoint", 10) == 0
    assert zoo(*show, "--load-checkpoint", 15) == 2
    assert "rl_model_15_steps.zip" in capfd.readouterr().err


def test_newest_run_that_has_the_model_is_shown(zoo, capfd, monkeypatch):
    settings = ("batch_size:16", "buffer_size:2000", "policy_kwargs:dict(net_arch=[16])")
    assert zoo("train", *PENDULUM, "-n", 10, "--eval-freq", -1, "--save-freq", 5, "-params", *settings) == 0
    assert zoo("train", *PENDULUM, "-n", 10, "--eval-freq", -1, "-params", *settings) == 0
    # as a study leaves them, and a run that was stopped; the highest number is not the last in the alphabet
    for name in ("Pendulum-v1_3", "Pendulum-v1_10", "Pendulum-v1_9_of_another_name"):
        (zoo.folder / "logs/dqs" / name).mkdir()
    show = (*PENDULUM, "-n", 3)
    for script, more in (("enjoy", ("--no-render", "--device", "cpu")), ("record_video", ())):
        monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
        assert zoo(script, *show, *more) == 0
        output = capfd.readouterr().out
        assert "Run 2, the newest that has this model" in output
        assert "Loading logs/dqs/Pendulum-v1_2/Pendulum-v1.zip" in output
    show = ("enjoy", *show, "--no-render", "--device", "cpu")
    assert zoo(*show, "--load-last-checkpoint") == 0
    assert "logs/dqs/Pendulum-v1_1/rl_model_10_steps.zip" in capfd.readouterr().out
    # 0 is the zoo's newest
    assert zoo(*show, "--exp-id", 0) == 0
    assert "Loading logs/dqs/Pendulum-v1_2/Pendulum-v1.zip" in capfd.readouterr().out
    # asked for by its number, also by the zoo's abbreviation
    assert zoo(*show, "--exp", 1) == 0
    assert "Loading logs/dqs/Pendulum-v1_1/Pendulum-v1.zip" in capfd.readouterr().out
    assert zoo(*show, "--exp-id", 3) == 2
    assert "path: logs/dqs/Pendulum-v1_3/Pendulum-v1.zip" in capfd.readouterr().err
    assert zoo(*show, "--load-best") == 2
    assert "path: logs/dqs/Pendulum-v1_10/best_model.zip" in capfd.readouterr().err

    # no screen: returns alone
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert zoo("enjoy", *PENDULUM, "-n", 201, "--device", "cpu") == 0
    output = capfd.readouterr().out
    assert "There is no screen" in output
    assert "Mean reward" in output
