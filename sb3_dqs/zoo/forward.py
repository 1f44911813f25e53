"""How does ``sb3-dqs <script> ...`` become the zoo's own script, with DQS registered and its settings found?"""

import contextlib
import runpy
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from sqlalchemy.exc import OperationalError

from sb3_dqs.checks import InputError
from sb3_dqs.extras import EXTRAS, install_command
from sb3_dqs.usage import SCRIPTS
from sb3_dqs.zoo.arguments import prepare

# Modules of other libraries' scripts that no extra of this package brings, and what to do without them
REMEDIES = {"psycopg2": f"write postgresql+psycopg:// in --storage, for which {install_command('psycopg')}"}

# How SB3 begins to say that a model does not fit the environment
OTHER_SPACES = ("Observation spaces do not match", "Action spaces do not match")


def run(script: str, arguments: Sequence[str]) -> int:
    """
    Run a script of the zoo in this process.

    :param script: one of ``SCRIPTS``
    :param arguments: of the command line
    :return: exit status, 2 where an argument or a setting was wrong
    """
    try:
        # dm_control registers with gymnasium through shimmy, and record_video has no --gym-packages
        if find_spec("shimmy") is not None:
            import shimmy  # noqa: F401
        arguments, changes_to_the_zoo = prepare(script, list(arguments))
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
    if isinstance(error, OperationalError):
        return f"the database of --storage does not answer: {str(error.orig).strip()}"
    if isinstance(error, ValueError) and str(error).startswith(OTHER_SPACES):
        return f"--trained-agent is of another environment. {error}"
    missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    if not isinstance(missing, ModuleNotFoundError) or missing.name is None:
        return None
    module = missing.name.split(".")[0]
    if find_spec(module) is not None:
        return None
    if module in EXTRAS:
        return f"{module} is not installed; {install_command(module)} brings it"
    if missing is not error:
        return str(error)  # the library that needs it says how to install it
    return f"{module} is not installed; {REMEDIES.get(module, 'look for a misspelt name, or install the package that has it')}"
