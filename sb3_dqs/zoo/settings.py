"""Where do the settings of an environment come from, and can DQS and the zoo read every one of them?"""

import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import sb3_dqs
from sb3_dqs import DQS
from sb3_dqs.checks import InputError

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

# Arguments of DQS that the zoo fills in itself
FILLED_IN = ("self", "env", "tensorboard_log", "verbose", "seed", "device", "_init_setup_model")


def settings_path(name: str = "dqs") -> Path:
    """
    :param name: ``"dqs"``, our settings, or ``"dqs_paper"``, the published ones
    :return: absolute path of the YAML file, in the installed package or in a source checkout
    :raises ValueError: if there is no such file
    """
    package = Path(sb3_dqs.__file__).resolve().parent
    for folder in (package / "hyperparams", package.parent / "hyperparams"):
        path = folder / f"{name}.yml"
        if path.is_file():
            return path
    raise InputError(f"no settings file {name}.yml is shipped; 'dqs' and 'dqs_paper' are")


def check_setting_names(names: Iterable[str], source: str) -> None:
    """
    :param names: keys of the settings of one environment
    :param source: where they come from, for the message
    :raises ValueError: if neither DQS nor the zoo knows one of them; names the nearest match
    """
    known = {*inspect.signature(DQS.__init__).parameters, *ZOO_SETTINGS} - {*FILLED_IN}
    for name in names:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"the known ones are {sorted(known)}"
            raise InputError(f"unknown setting {name!r} for dqs in -params or {source}; {hint}")
