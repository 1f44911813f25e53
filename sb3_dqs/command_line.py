"""What does the command ``sb3-dqs`` do? Help, the export of a policy, and scripts of rl-zoo3, or how to install that."""

import os
import sys
from importlib.util import find_spec

from sb3_dqs.extras import install_command
from sb3_dqs.usage import USAGE


def main() -> int:
    """
    Show the help, export a policy, see :func:`sb3_dqs.export.command.main`, or run a script of rl-zoo3 with DQS registered,
    see :func:`sb3_dqs.zoo.forward.main`.

    :return: exit status, 1 where an extra is not installed, 2 where the command line or a setting was wrong
    """
    # modules of the user's are found here, as by python -m
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    script = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if script in ("-h", "--help"):
        print(USAGE)
        return 0
    if script == "export":
        from sb3_dqs.export.command import main as export

        return export(sys.argv[2:])
    if find_spec("rl_zoo3") is None:
        print(f"sb3-dqs {script}: error: rl_zoo3 is not installed; {install_command('rl_zoo3')}", file=sys.stderr)
        return 1
    from sb3_dqs.zoo.forward import main as forward

    return forward()
