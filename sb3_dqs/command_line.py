"""What does the command ``sb3-dqs`` do? Help, the export of a policy, and scripts of rl-zoo3, or how to install that."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from sb3_dqs.checks import InputError, check_choice
from sb3_dqs.extras import install_command
from sb3_dqs.usage import SCRIPTS, USAGE


def main(argv: Sequence[str] | None = None) -> int:
    """
    Show the help, export a policy, see :func:`sb3_dqs.export.command.main`, or run a script of rl-zoo3 with DQS registered,
    see :func:`sb3_dqs.zoo.forward.run`.

    :param argv: name of the script and its arguments; ``None``: those of the command line
    :return: exit status, 1 where an extra is not installed, 2 where the command line or a setting was wrong
    """
    # as a command, it finds modules of the user's here, as python -m does
    if argv is None and not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    script, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if script in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        check_choice("script", script, [*SCRIPTS, "export"])
    except InputError as error:
        print(f"sb3-dqs: error: {error}", file=sys.stderr)
        return 2
    if script == "export":
        from sb3_dqs.export.command import main as export

        return export(arguments)
    if find_spec("rl_zoo3") is None:
        print(f"sb3-dqs {script}: error: rl_zoo3 is not installed; {install_command('rl_zoo3')}", file=sys.stderr)
        return 1
    from sb3_dqs.zoo.forward import run

    return run(script, arguments)
