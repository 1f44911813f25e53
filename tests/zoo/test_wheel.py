"""Does a fresh installation of the wheel do what the README promises? Nothing of the source checkout is on its path."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.zoo.processes import REPOSITORY

pytestmark = pytest.mark.integration


def checked(*command, cwd, timeout=600):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    # Optuna tells of its trials on the standard error
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # from a copy: setuptools would pack what an earlier build has left in build/
    leftovers = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "runs", "logs", "__pycache__")
    shutil.copytree(REPOSITORY, folder / "source", ignore=leftovers)
    checked(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, folder / "source", cwd=folder)
    return next(folder.glob("sb3_dqs-*.whl"))


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """The console script ``sb3-dqs`` of a fresh environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    install = (folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    checked(*install, "-c", REPOSITORY / "constraints.txt", f"{wheel}[zoo]", cwd=folder)
    return folder / "bin/sb3-dqs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def test_wheel_holds_every_package_and_the_settings(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {path.parent.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "sb3_dqs").rglob("__init__.py")}
    assert {f"{package}/__init__.py" for package in packages} <= names
    assert {"sb3_dqs/py.typed", "sb3_dqs/hyperparams/dqs.yml", "sb3_dqs/hyperparams/dqs_paper.yml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "hyperparams/", "benchmarks/"))]


# SAC and TQC are the zoo's own: that they run beside DQS takes fewer steps to see
@pytest.mark.parametrize(("algo", "n_steps"), [("dqs", 3000), ("sac", 600), ("tqc", 600)])
def test_train_and_everything_after_it(algo, n_steps, command, folder):
    agent = ("--algo", algo, "--env", "Pendulum-v1")
    output = checked(command, "train", *agent, "-n", n_steps, "--eval-freq", n_steps // 2, cwd=folder)
    run = folder / f"logs/{algo}/Pendulum-v1_1"
    assert {"Pendulum-v1.zip", "best_model.zip", "evaluations.npz", "0.monitor.csv"} <= {path.name for path in run.iterdir()}
    if algo == "dqs":
        assert "sb3_dqs/hyperparams/dqs.yml" in output

    output = checked(command, "enjoy", *agent, "-f", "logs", "--no-render", "-n", 400, cwd=folder)
    assert "2 Episodes" in output
    checked(command, "plot_train", "-a", algo, "-e", "Pendulum", "-f", "logs", "-w", 1, cwd=folder)
    checked(command, "all_plots", "-a", algo, "-e", "Pendulum", "-f", "logs", "-o", f"{algo}_scores", cwd=folder)
    scores = pickle.loads((folder / f"{algo}_scores.pkl").read_bytes())
    assert len(next(iter(scores["Pendulum"].values()))["timesteps"]) == 2
    checked(command, "record_video", *agent, "-f", "logs", "-n", 50, cwd=folder)
    videos = [*(run / "videos").glob("*.mp4")]
    assert len(videos) == 1
    assert videos[0].stat().st_size > 1_000


def test_tuning_ends_with_a_best_trial_and_it_trains_with_exactly_its_settings(command, folder):
    agent = ("--algo", "dqs", "--env", "Pendulum-v1")
    tuning = ("-optimize", "--n-trials", 4, "--pruner", "median", "--study-name", "fresh")
    output = checked(command, "train", *agent, "-n", 1000, *tuning, cwd=folder)
    best = int(re.findall(r"Best is trial (\d+)", output)[-1])
    found = dict(re.findall(r"^    (\w+): (.*)$", output.split("Params: ")[1].split("User Attributes")[0], re.MULTILINE))

    checked(command, "train", *agent, "-n", 200, "--eval-freq", -1, "--study-name", "fresh", "--trial-id", best, cwd=folder)
    newest = max((folder / "logs/dqs").glob("Pendulum-v1_*"), key=lambda path: int(path.name.split("_")[-1]))
    settings = yaml.unsafe_load(Path(newest / "Pendulum-v1/config.yml").read_text())
    for name in ("learning_rate", "tau", "exploration_correlation_time", "n_diffusion_steps", "policy_delay", "train_freq"):
        assert str(settings[name]) == found[name], name
    for name in ("batch_size", "n_score_samples", "actor_batch_size", "n_action_candidates"):
        assert settings[name] == 2 ** int(found[f"{name}_pow"]), name
    assert settings["gamma"] == 1 - float(found["one_minus_gamma"])
    assert str(settings["temperature"]) == found.get("temperature", "auto")
    assert str(settings["target_entropy"]) == found.get("target_entropy", "auto")
    assert str(settings["cooling_updates"]) == found.get("cooling_updates", "5000")
