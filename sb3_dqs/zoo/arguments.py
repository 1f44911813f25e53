"""Is the command line usable, and what has the zoo no default for? Seen to before the zoo's script runs."""

import argparse
import contextlib
import importlib
import inspect
import io
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from uuid import uuid4

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import ALGOS, StoreDict, get_model_path
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from stable_baselines3.common.utils import get_device

from sb3_dqs.checks import InputError, check_choice
from sb3_dqs.signatures import takes_any
from sb3_dqs.zoo.figures import figures_become_files
from sb3_dqs.zoo.prediction import agents_only_act
from sb3_dqs.zoo.search_space import check_search
from sb3_dqs.zoo.settings import ALGORITHMS
from sb3_dqs.zoo.storage import HEARTBEAT_INTERVAL, MAX_RETRIES, check_heartbeat, databases_with_heartbeat

# Of a Linux session with a screen, or with a driver that the user chose instead
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")

# Folder of the zoo's own agents, the default of --folder: what is not there is downloaded by enjoy
PRETRAINED = "rl-trained-agents"

# Whole numbers: the smallest allowed value, one below that has a meaning of its own, and a remedy
Counts = tuple[tuple[tuple[str, ...], int, int | None, str], ...]

COUNTS_OF_TRAINING: Counts = (
    (("-n", "--n-timesteps"), 1, -1, "leave it out for as many as the settings file says"),
    (("--eval-episodes",), 1, None, "5 is the default, and --eval-freq -1 is for no evaluations"),
    (("--n-eval-envs",), 1, None, "1 is the default"),
    (("--n-evaluations",), 1, None, "leave it out for one per 100,000 steps"),
    (("--n-jobs",), 1, -1, "1 is the default, and -1 stands for all cores"),
    (("--n-startup-trials",), 0, None, "10 is the default"),
    (("--trial-id",), 0, None, "Optuna counts trials from 0 on"),
)
COUNTS_OF_SHOWING: Counts = (
    (("-n", "--n-timesteps"), 1, None, "1000 is the default"),
    (("--n-envs",), 1, None, "1 is the default"),
)

Prepared = tuple[list[str], AbstractContextManager[None]]


def prepare(script: str, arguments: list[str]) -> Prepared:
    """
    Check the arguments that the zoo would answer with a traceback, take out our own and fill in what is missing.

    :param script: name of the script
    :param arguments: of the command line
    :return: arguments for the zoo's script, and what has to be open while it runs
    :raises ValueError: if an argument is wrong
    """
    if {"-h", "--help"} & set(arguments):
        return arguments, _own_options_shown() if script == "train" else contextlib.nullcontext()
    if script == "train":
        return _prepare_training(arguments)
    if script in ("enjoy", "record_video"):
        return _prepare_showing(script, arguments)
    _check_plotted_files(script, arguments)
    return arguments, figures_become_files(script)


def _prepare_training(arguments: list[str]) -> Prepared:
    heartbeat, arguments = _take_out_heartbeat(arguments)
    parser = _agent_parser("train")
    parser.add_argument("-f", "--log-folder", default="logs")
    parser.add_argument("-i", "--trained-agent", default="")
    parser.add_argument("-optimize", "--optimize-hyperparameters", action="store_true", dest="optimize")
    parser.add_argument("--storage")
    parser.add_argument("--study-name")
    for option in (["--eval-env-kwargs"], ["-params", "--hyperparams"]):
        parser.add_argument(*option, nargs="+", action=PythonValues)
    known = _known(parser, arguments, COUNTS_OF_TRAINING)
    agent = Path(known.trained_agent)
    if known.trained_agent and not (agent.suffix == ".zip" and agent.is_file()):
        raise InputError(f"--trained-agent must be an existing .zip file, got {known.trained_agent!r}")
    if heartbeat and not (known.optimize and known.storage and not known.storage.endswith(".log")):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in heartbeat)
        raise InputError(f"{names}: only with -optimize and a database as --storage; leave it out")
    return [*_tuning_arguments(known), *arguments], databases_with_heartbeat(**heartbeat)


def _prepare_showing(script: str, arguments: list[str]) -> Prepared:
    parser = _agent_parser(script)
    parser.add_argument("-f", "--folder")
    parser.add_argument("--exp-id", type=int, default=0)
    parser.add_argument("--load-best", action="store_true")
    parser.add_argument("--load-checkpoint", type=int)
    parser.add_argument("--load-last-checkpoint", action="store_true")
    parser.add_argument("--no-render", action="store_true")
    known = _known(parser, arguments, COUNTS_OF_SHOWING)
    if script == "record_video":  # the packages have been imported, and the script has no such option
        arguments = _without_packages(arguments)
    filled_in = []
    if known.folder is None:
        known.folder = "logs" if known.algo in ALGORITHMS else PRETRAINED
        filled_in += ["--folder", known.folder]
    if script == "record_video" or PRETRAINED not in known.folder:
        filled_in += ["--exp-id", str(_run_with_the_model(known))]
    if script == "enjoy" and not known.no_render and sys.platform == "linux" and not any(map(os.environ.get, SCREENS)):
        filled_in += ["--no-render"]
        print("There is no screen, so only returns are shown; sb3-dqs record_video makes a film")
    # the last value of an option counts: --exp-id 0 stands for the newest
    return [*arguments, *filled_in], agents_only_act(known.algo)


def _without_packages(arguments: list[str]) -> list[str]:
    parser = _parser("record_video")
    parser.add_argument("--gym-packages", nargs="+")
    return parser.parse_known_args(arguments)[1]


def _run_with_the_model(known: argparse.Namespace) -> int:
    """The run that was asked for, or the newest that has the model: the folder of a study or of a stopped run has none."""
    which = (known.load_best, known.load_checkpoint, known.load_last_checkpoint)
    environment, folder = EnvironmentName(known.env), Path(known.folder) / known.algo
    numbers = [path.name.removeprefix(f"{environment}_") for path in folder.glob(f"{environment}_*")]
    newest_first = sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)
    errors = []
    for number in [known.exp_id] if known.exp_id != 0 else newest_first or [0]:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                get_model_path(number, known.folder, known.algo, environment, *which)
        except (AssertionError, ValueError) as error:  # each says which file or folder there is not
            errors.append(error)
        else:
            if errors:
                print(f"Run {number}, the newest that has this model")
            return number
    raise InputError(f"{errors[0]}; {_what_there_is(folder, environment)}") from errors[0]


def _what_there_is(folder: Path, environment: EnvironmentName) -> str:
    """A run of another name, as -uuid gives them, cannot be asked for; a checkpoint can, by its number."""
    runs = sorted(path for path in folder.glob(f"{environment}_*") if path.is_dir())
    if not runs:
        return f"there is no run of {environment} in {folder}; -f names another log folder"
    files = {run.name: sorted(path.name for path in run.glob("*.zip")) for run in runs}
    found = "; ".join(f"{name} has {', '.join(models) or 'no model'}" for name, models in files.items())
    unnumbered = [run.name for run in runs if not run.name.removeprefix(f"{environment}_").isdecimal()]
    remedy = f"; rename {unnumbered[0]} to {environment}_N to ask for it by --exp-id N" if unnumbered else ""
    return f"in {folder} {found}{remedy}"


def _check_plotted_files(script: str, arguments: list[str]) -> None:
    parser = _parser(script)
    if script == "plot_train":
        parser.add_argument("-a", "--algo", required=True)
        parser.add_argument("-e", "--env", nargs="+", required=True)
        parser.add_argument("-f", "--exp-folder", required=True)
        known, _ = parser.parse_known_args(arguments)
        _runs_to_plot([known.algo], known.env, [known.exp_folder], option="--exp-folder")
    if script == "all_plots":
        parser.add_argument("-a", "--algos", nargs="+", required=True)
        parser.add_argument("-e", "--env", nargs="+", required=True)
        parser.add_argument("-f", "--exp-folders", nargs="+", required=True)
        known, _ = parser.parse_known_args(arguments)
        algos = [algo.lower() for algo in known.algos]
        for (algo, environment), runs in _runs_to_plot(algos, known.env, known.exp_folders, option="--exp-folders").items():
            if not any((run / "evaluations.npz").is_file() for run in runs):
                raise InputError(
                    f"no run of {algo} in {environment} has been evaluated: train with an --eval-freq, by default 25000, "
                    "below the number of steps"
                )
    if script == "plot_from_file":
        parser.add_argument("-i", "--input", required=True)
        parser.add_argument("-iqm", "--iqm", action="store_true")  # or it would be -i with qm as its value
        for option in ("--skip-envs", "--keep-envs", "--skip-keys", "--keep-keys", "--merge"):
            parser.add_argument(option, nargs="+", default=[])
        known, _ = parser.parse_known_args(arguments)
        path = Path(known.input.removesuffix(".pkl") + ".pkl")
        if not path.is_file():
            raise InputError(f"--input must be a file that all_plots has written, and there is no {known.input}")
        if not known.merge:  # more runs may be in the others
            _check_several_runs(path, known)


def _check_several_runs(path: Path, known: argparse.Namespace) -> None:
    # of a single run all_plots writes a number in place of a list: plot_from_file leaves it out, and fails if none is left
    several: dict[str, bool] = {}
    for environment, runs in pickle.loads(path.read_bytes()).items():
        if environment != "results_table" and _is_plotted(environment, known.skip_envs, known.keep_envs):
            for label, scores in runs.items():
                several[label] = several.get(label, False) or np.ndim(scores["last_evals"]) > 0
    for label, are_several in several.items():
        if not are_several and _is_plotted(label, known.skip_keys, known.keep_keys):
            raise InputError(
                f"plot_from_file compares several runs, and {path} has one of {label}; train with other seeds and write the "
                "file again by all_plots, or leave it out by --skip-keys"
            )


def _is_plotted(name: str, skipped: Sequence[str], kept: Sequence[str]) -> bool:
    return name not in skipped and (not kept or name in kept)


def _runs_to_plot(
    algos: Sequence[str], environments: Sequence[str], folders: Sequence[str], option: str
) -> dict[tuple[str, str], list[Path]]:
    """
    :return: algorithm and environment -> folders of the runs
    :raises ValueError: if there is none of an algorithm in an environment
    """
    found: dict[tuple[str, str], list[Path]] = {}
    for algo in algos:
        paths = [Path(folder) / algo for folder in folders if (Path(folder) / algo).is_dir()]
        if not paths:
            raise InputError(
                f"{option} must hold a folder {algo}, and there is no {' or '.join(f'{f}/{algo}' for f in folders)}"
            )
        runs = sorted(run for path in paths for run in path.iterdir() if run.is_dir())
        for environment in environments:
            found[algo, environment] = [run for run in runs if environment in run.name]
            if not found[algo, environment]:
                names = [run.name for run in runs]
                raise InputError(f"--env must be part of the name of a run of {algo}, got {environment!r}; there are {names}")
    return found


def _parser(script: str) -> argparse.ArgumentParser:
    # takes abbreviations, as the zoo's does: what is short for one of its options alone is so for one of the few here
    return argparse.ArgumentParser(prog=f"sb3-dqs {script}", add_help=False)


def _agent_parser(script: str) -> argparse.ArgumentParser:
    """The few arguments of the zoo that are looked at; all but ours are its own to read, later."""
    parser = _parser(script)
    parser.add_argument("--algo", default="ppo")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--gym-packages", nargs="+", default=[])
    parser.add_argument("--env-kwargs", nargs="+", action=PythonValues)
    parser.add_argument("--device", default="auto")
    return parser


class PythonValues(StoreDict):
    """``name:value``, where the value is Python, as in the zoo; what cannot be evaluated is an error that says so."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except Exception as error:
            raise InputError(
                f"{option_string}: values behind a colon are Python, so text needs quotes of its own, as in "
                f"temperature:\"'auto'\"; got: {error}"
            ) from error


def _known(parser: argparse.ArgumentParser, arguments: list[str], counts: Counts) -> argparse.Namespace:
    for options, *_ in counts:
        parser.add_argument(*options, type=int)
    known, _ = parser.parse_known_args(arguments)
    for (*_, name), smallest, standing_for, remedy in counts:
        value = getattr(known, name.removeprefix("--").replace("-", "_"))
        if value is not None and value < smallest and value != standing_for:
            raise InputError(f"{name} must be at least {smallest}, got {value}; {remedy}")
    check_choice("--algo", known.algo, ALGOS)
    for package in known.gym_packages:
        importlib.import_module(package)
    import rl_zoo3.import_envs  # noqa: F401  registers environments, those of the user's custom_envs.py too

    if known.env not in gym.registry:
        nearest = get_close_matches(known.env, gym.registry, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "--gym-packages names packages that register some"
        raise InputError(f"--env must be an environment that is registered with gymnasium, got {known.env!r}; {hint}")
    _check_env_kwargs(known.env, known.env_kwargs)
    try:
        get_device(known.device)
    except RuntimeError as error:
        raise InputError(f"--device must be a device of torch, such as cpu or cuda, got {known.device!r}; {error}") from error
    return known


def _check_env_kwargs(env: str, env_kwargs: dict[str, Any] | None) -> None:
    entry_point = gym.registry[env].entry_point
    if not env_kwargs or entry_point is None:
        return
    make = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = inspect.signature(make).parameters
    if takes_any(parameters):
        return
    # what make() takes for itself, such as max_episode_steps
    known = {*parameters, *inspect.signature(gym.make).parameters}
    for name in env_kwargs:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {sorted(parameters)}"
            raise InputError(f"--env-kwargs: {env} has no argument {name!r}; {hint}")


def _tuning_arguments(known: argparse.Namespace) -> list[str]:
    """Where the study lies, if there is one."""
    if not known.optimize and known.trial_id is None:
        return []
    check_search(known.algo)
    _check_storage(known.storage)
    if known.trial_id is not None and known.study_name is None:
        raise InputError("--trial-id needs the --study-name that the trial belongs to, or the zoo would train without it")
    if known.algo not in ALGORITHMS:
        if known.trial_id is not None and known.storage is None:
            raise InputError("--trial-id needs the --storage that the trial lies in, or the zoo would train without it")
        return []
    filled_in = []
    if known.storage is None:
        journal = Path(known.log_folder) / known.algo / "studies.log"
        filled_in += ["--storage", str(journal)]
        print(f"Study in {journal}")
    if known.study_name is None:
        name = f"{known.env}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{uuid4().hex[:4]}".replace("/", "-")
        filled_in += ["--study-name", name]
        print(f"Study name: {name}")
    return filled_in


def _check_storage(storage: str | None) -> None:
    if storage is None or storage.endswith(".log"):
        return
    try:
        make_url(storage).get_dialect()
    except ArgumentError as error:
        raise InputError(
            f"--storage must be a file that ends in .log, or the URL of a database such as sqlite:///studies.db; {error}"
        ) from error


def _own_options() -> argparse.ArgumentParser:
    """What ``train`` takes beyond the zoo."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    group = parser.add_argument_group("options of sb3-dqs, for a database as --storage")
    group.add_argument(
        "--heartbeat-interval",
        type=int,
        help=f"Seconds between two heartbeats of a running trial (default: {HEARTBEAT_INTERVAL})",
    )
    group.add_argument(
        "--grace-period",
        type=int,
        help="Seconds without a heartbeat after which a trial is failed and queued again (default: twice the interval)",
    )
    group.add_argument(
        "--max-retries",
        type=int,
        help=f"How often such a trial is queued again; 0: never (default: {MAX_RETRIES})",
    )
    return parser


@contextlib.contextmanager
def _own_options_shown() -> Iterator[None]:
    """When this is closed, our options are shown, below those that the zoo's parser has shown."""
    try:
        yield
    finally:
        print(f"\n{_own_options().format_help().strip()}")


def _take_out_heartbeat(arguments: list[str]) -> tuple[dict[str, int], list[str]]:
    own, arguments = _own_options().parse_known_args(arguments)
    given = {name: value for name, value in vars(own).items() if value is not None}
    check_heartbeat(**given)
    return given, arguments
