"""Which extra of this package brings a module that is not installed? Told in one sentence, not by a traceback."""

from importlib.util import find_spec

# Module that this package or a script of the zoo imports, and the extra that brings it; a test looks into the extras
EXTRAS = {
    "gymnasium_robotics": "maze",
    "joblib": "benchmark",
    "matplotlib": "plots",
    "moviepy": "zoo",
    "mujoco": "mujoco",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "psycopg": "postgres",
    "pygame": "zoo",
    "ray": "cluster",
    "requests": "zoo",
    "rich": "plots",
    "rl_zoo3": "zoo",
    "rliable": "benchmark",
    "seaborn": "zoo",
    "tensorboard": "plots",
    "tensordict": "gpu",
    "tqdm": "plots",
    "wandb": "track",
    "yaml": "benchmark",
}


def require(*modules: str) -> None:
    """
    For scripts, before they import what an extra brings: end the process where a module is missing, with one sentence.

    :param modules: names of modules, keys of ``EXTRAS``
    :raises SystemExit: if one of them is not installed; the message names all that are missing, and their extras
    """
    if is_missing := what_is_missing(*modules):
        raise SystemExit(is_missing)


def what_is_missing(*modules: str) -> str:
    """
    :param modules: names of modules, keys of ``EXTRAS``
    :return: a sentence that names those which are not installed, and their extras; empty if all are
    """
    missing = [module for module in modules if find_spec(module) is None]
    return f"{' and '.join(missing)} must be installed for this: {install_command(*missing)}" if missing else ""


def install_command(*modules: str) -> str:
    """
    :param modules: names of modules, keys of ``EXTRAS``
    :return: the command that installs the extras which bring them
    """
    extras = sorted({EXTRAS[module] for module in modules})
    return f"pip install 'sb3-dqs[{','.join(extras)}]'"
