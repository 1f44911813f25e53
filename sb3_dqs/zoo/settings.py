"""Where do the settings of an environment come from, and does anyone know each of them?"""

import inspect
from collections.abc import Iterable
from pathlib import Path

import yaml

import sb3_dqs
from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import InputError
from sb3_dqs.signatures import hint_for

# Names for --algo
ALGORITHMS: dict[str, type[DQS]] = {"dqs": DQS, "dqs_paper": PaperDQS}

# Keys of a settings file that the zoo takes for itself before it builds the model (rl_zoo3 2.9, ``exp_manager.py``)
ZOO_SETTINGS = (
    "callback",
    "env_kwargs",
    "env_wrapper",
    "frame_stack",
    "monitor_kwargs",
    "n_envs",
    "n_timesteps",
    "noise_std",
    "noise_type",
    "normalize",
    "vec_env_wrapper",
)

# Arguments of the algorithms that the zoo fills in itself
FILLED_IN = ("self", "env", "tensorboard_log", "verbose", "seed", "device", "_init_setup_model")


def settings_path(algo: str = "dqs") -> Path:
    """
    :param algo: ``"dqs"`` or ``"dqs_paper"``
    :return: absolute path of its YAML file, in the installed package or in a source checkout
    :raises ValueError: if there is no such file
    """
    package = Path(sb3_dqs.__file__).resolve().parent
    for folder in (package / "hyperparams", package.parent / "hyperparams"):
        path = folder / f"{algo}.yml"
        if path.is_file():
            return path
    raise InputError(f"no settings file {algo}.yml is shipped; those of {sorted(ALGORITHMS)} are")


def check_settings_file(path: str, env_id: str) -> None:
    """
    Check that the zoo will find an entry in a YAML file. Settings in Python are code, whose errors are tracebacks.

    :param path: of the file, or name of a Python package
    :param env_id: environment to train on
    :raises ValueError: if there is no such file, or no settings in it for this environment
    """
    if path.endswith((".yml", ".yaml", ".py")) and not Path(path).is_file():
        raise InputError(f"there is no settings file {path}")
    if not path.endswith((".yml", ".yaml")):
        return
    try:
        entries = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict) or not {env_id, "default"} & set(entries):
        raise InputError(f"{path} has no entry {env_id!r} and no entry 'default'")
    name = env_id if env_id in entries else "default"
    if not isinstance(entries[name], dict):
        raise InputError(f"entry {name!r} of {path} must hold settings, 'name: value' on each line, got {entries[name]!r}")


def check_setting_names(names: Iterable[str], algo: str, source: str) -> None:
    """
    :param names: keys of the settings of one environment
    :param algo: name of the algorithm
    :param source: where they come from, for the message
    :raises ValueError: if neither the algorithm nor the zoo knows one of them; names its counterpart or the nearest match
    """
    known = {*inspect.signature(ALGORITHMS[algo].__init__).parameters, *ZOO_SETTINGS} - {*FILLED_IN}
    for name in names:
        if name in FILLED_IN:
            raise InputError(
                f"{name!r} is no setting in -params or {source}: the zoo fills it in, from options of its command line"
            )
        if name not in known:
            raise InputError(f"unknown setting {name!r} for {algo} in -params or {source}; {hint_for(str(name), known)}")
