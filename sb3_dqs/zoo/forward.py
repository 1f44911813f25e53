"""How does ``sb3-dqs <script> ...`` become the zoo's own script, with DQS registered and its settings found?"""

import argparse
import runpy
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import optuna
from rl_zoo3.utils import ALGOS

from sb3_dqs.checks import InputError, check_choice, check_integer
from sb3_dqs.zoo.registration import ALGO
from sb3_dqs.zoo.storage import HEARTBEAT_INTERVAL, MAX_RETRIES, create_study_with_heartbeat, heartbeat_storage

SCRIPTS = {
    "train": "rl_zoo3.train",
    "enjoy": "rl_zoo3.enjoy",
    "record_video": "rl_zoo3.record_video",
    "plot_train": "rl_zoo3.plots.plot_train",
    "plot_from_file": "rl_zoo3.plots.plot_from_file",
    "all_plots": "rl_zoo3.plots.all_plots",
}

# Which extra of this package installs a module that was not found
EXTRAS = {"psycopg": "postgres", "psycopg2": "postgres", "mujoco": "mujoco"}

USAGE = f"""usage: sb3-dqs <script> [arguments of rl-zoo3's script]

The scripts of rl-zoo3, with DQS as --algo {ALGO} beside its own algorithms: {", ".join(SCRIPTS)}.
For the arguments of one: sb3-dqs <script> --help

    sb3-dqs train --algo {ALGO} --env Pendulum-v1
    sb3-dqs enjoy --algo {ALGO} --env Pendulum-v1
    sb3-dqs train --algo {ALGO} --env Pendulum-v1 -n 5000 -optimize --n-trials 30 --study-name pendulum

Beyond the zoo: settings of {ALGO} come from this package unless --conf-file names others; -optimize and --trial-id of {ALGO}
keep their study in the log folder (<folder>/{ALGO}/studies.log) unless --storage names another place; a database as --storage
has heartbeats: --heartbeat-interval ({HEARTBEAT_INTERVAL} s), --grace-period (twice that), --max-retries ({MAX_RETRIES})."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a script of the zoo in this process.

    :param argv: name of the script and its arguments; ``None``: those of the command line
    :return: exit status, 2 where the command line or a setting was wrong
    """
    script, *arguments = (list(sys.argv[1:] if argv is None else argv)) or ["--help"]
    if script in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        check_choice("script", script, SCRIPTS)
        _run(script, _complete(script, arguments))
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"sb3-dqs {script}: error: {message}", file=sys.stderr)
        return 2
    return 0


def _run(script: str, arguments: list[str]) -> None:
    # dm_control registers with gymnasium through shimmy, and record_video has no --gym-packages
    if find_spec("shimmy") is not None:
        import shimmy  # noqa: F401
    sys.argv = [f"sb3-dqs {script}", *arguments]
    with warnings.catch_warnings():
        # The package of the plots has loaded its scripts already
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
        runpy.run_module(SCRIPTS[script], run_name="__main__", alter_sys=True)


def _complete(script: str, arguments: list[str]) -> list[str]:
    """Take out our own arguments, and fill in what the zoo has no default for."""
    if script in ("train", "enjoy", "record_video"):
        known, _ = _zoo_parser().parse_known_args(arguments)
        if known.algo is not None:
            check_choice("--algo", known.algo, ALGOS)
        if script == "train":
            arguments = _take_out_heartbeat(arguments)
            arguments = arguments + _tuning_arguments(known)
        elif known.algo == ALGO and known.folder is None:
            # The zoo's default is its folder of pretrained agents, of which there are none for DQS
            arguments = [*arguments, "--folder", "logs"]
    return arguments


def _zoo_parser() -> argparse.ArgumentParser:
    """The few arguments of the zoo that decide what is filled in."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--algo")
    parser.add_argument("--env")
    parser.add_argument("-f", "--folder", "--log-folder")
    # the zoo itself takes abbreviations, and --optimize is a likely one
    parser.add_argument("-optimize", "--optimize", "--optimize-hyperparameters", action="store_true", dest="optimize")
    parser.add_argument("--storage")
    parser.add_argument("--study-name")
    parser.add_argument("--trial-id", type=int)
    return parser


def _tuning_arguments(known: argparse.Namespace) -> list[str]:
    if known.trial_id is not None and known.study_name is None:
        raise InputError("--trial-id needs the --study-name that the trial belongs to, or the zoo would train without it")
    filled_in = []
    if known.algo == ALGO and (known.optimize or known.trial_id is not None):
        if known.storage is None:
            journal = Path(known.folder or "logs") / ALGO / "studies.log"
            filled_in += ["--storage", str(journal)]
            print(f"Study in {journal}")
        if known.study_name is None:
            name = f"{known.env or 'study'}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{uuid4().hex[:4]}".replace("/", "-")
            filled_in += ["--study-name", name]
            print(f"Study name: {name}")
    elif known.trial_id is not None and known.storage is None:
        raise InputError("--trial-id needs the --storage that the trial lies in, or the zoo would train without it")
    return filled_in


def _take_out_heartbeat(arguments: list[str]) -> list[str]:
    parser = argparse.ArgumentParser(prog="sb3-dqs train", add_help=False, allow_abbrev=False)
    parser.add_argument("--heartbeat-interval", type=int, default=HEARTBEAT_INTERVAL)
    parser.add_argument("--grace-period", type=int)
    parser.add_argument("--max-retries", type=int, default=MAX_RETRIES)
    heartbeat, arguments = parser.parse_known_args(arguments)
    check_integer("--heartbeat-interval", heartbeat.heartbeat_interval, 1, f"{HEARTBEAT_INTERVAL} seconds is the default")
    check_integer("--max-retries", heartbeat.max_retries, 0, "0 never runs a stale trial again")
    if heartbeat.grace_period is not None:
        check_integer("--grace-period", heartbeat.grace_period, 1, "twice the heartbeat interval is the default")
    # The zoo offers no place for a storage object, so that the one function which it hands the URL to is replaced
    optuna.create_study = create_study_with_heartbeat(optuna.create_study, partial(heartbeat_storage, **vars(heartbeat)))
    return arguments


def _message(error: Exception) -> str | None:
    """What to tell the user who caused this error by a wrong argument or setting; ``None`` where it may be a bug."""
    raised_in = _module_of_last_frame(error.__traceback__)
    missing = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
    if isinstance(missing, ModuleNotFoundError) and missing.name is not None:
        module = missing.name.split(".")[0]
        extra = EXTRAS.get(module, "zoo")
        return (
            f"{module} is not installed; pip install 'sb3-dqs[{extra}]' brings what this script needs, or pip install {module}"
        )
    if isinstance(error, InputError):
        return str(error)
    wrong_input = (OSError,) if raised_in.startswith("rl_zoo3.plots.") else (OSError, ValueError, AssertionError)
    if isinstance(error, wrong_input) and raised_in.startswith("rl_zoo3."):
        return str(error) or None
    if isinstance(error, (NameError, SyntaxError)) and raised_in == "rl_zoo3.utils":
        return f"values behind a colon are Python, so text needs quotes of its own, as in temperature:\"'auto'\"; got: {error}"
    return None


def _module_of_last_frame(traceback: TracebackType | None) -> str:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    # A script run by runpy is called __main__, and its spec keeps its name
    module = traceback.tb_frame.f_globals
    spec = module.get("__spec__")
    return str(module.get("__name__") if spec is None else spec.name)
