"""How does ``sb3-dqs <script> ...`` become the zoo's own script, with DQS registered and its settings found?"""

import contextlib
import runpy
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from sb3_dqs.checks import InputError, check_choice
from sb3_dqs.zoo.arguments import prepare
from sb3_dqs.zoo.storage import HEARTBEAT_INTERVAL, MAX_RETRIES

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

The scripts of rl-zoo3, with DQS as --algo dqs, and as published as --algo dqs_paper, beside its own algorithms:
{", ".join(SCRIPTS)}.
For the arguments of one: sb3-dqs <script> --help

    sb3-dqs train --algo dqs --env Pendulum-v1
    sb3-dqs enjoy --algo dqs --env Pendulum-v1
    sb3-dqs train --algo dqs --env Pendulum-v1 -n 5000 -optimize --n-trials 30 --study-name pendulum

Beyond the zoo: settings of dqs and dqs_paper come from this package unless --conf-file names others; -optimize and --trial-id
of dqs keep their study in the log folder (<folder>/dqs/studies.log) unless --storage names another place; a database as
--storage has heartbeats: --heartbeat-interval ({HEARTBEAT_INTERVAL} s), --grace-period (twice that) and
--max-retries ({MAX_RETRIES})."""


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
        # dm_control registers with gymnasium through shimmy, and record_video has no --gym-packages
        if find_spec("shimmy") is not None:
            import shimmy  # noqa: F401
        arguments, changes_to_the_zoo = prepare(script, arguments)
        with changes_to_the_zoo, _command_line(f"sb3-dqs {script}", *arguments), warnings.catch_warnings():
            # The package of the plots has loaded its scripts already
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
            runpy.run_module(SCRIPTS[script], run_name="__main__", alter_sys=True)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"sb3-dqs {script}: error: {message}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def _command_line(*argv: str) -> Iterator[None]:
    previous, sys.argv = sys.argv, list(argv)
    try:
        yield
    finally:
        sys.argv = previous


def _message(error: Exception) -> str | None:
    """What to tell whose input cannot be used, or whose installation is not complete; ``None`` for any other error."""
    if isinstance(error, InputError):
        return str(error)
    missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    if not isinstance(missing, ModuleNotFoundError) or missing.name is None:
        return None
    module = missing.name.split(".")[0]
    if find_spec(module) is not None:
        return None
    extra = EXTRAS.get(module, "zoo")
    return f"{module} is not installed; pip install 'sb3-dqs[{extra}]' brings what this script needs, or pip install {module}"
