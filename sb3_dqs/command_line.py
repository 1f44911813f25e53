"""What does the command ``sb3-dqs`` do where rl_zoo3 is not installed? It says how to install it."""

import sys


def main() -> int:
    """
    Run a script of rl-zoo3 with DQS registered, see :func:`sb3_dqs.zoo.forward.main`.

    :return: exit status
    """
    try:
        from sb3_dqs.zoo.forward import main as forward
    except ImportError as error:
        if error.name != "rl_zoo3":
            raise
        print(f"sb3-dqs: error: {error}", file=sys.stderr)
        return 1
    return forward()
