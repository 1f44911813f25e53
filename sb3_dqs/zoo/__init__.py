"""
DQS in rl-zoo3: importing this package registers it there, with its settings and its search space.

The only importer of rl_zoo3 in this package. ``sb3-dqs <script> ...`` runs the zoo's own scripts after it.
"""

from importlib.util import find_spec

from sb3_dqs.extras import install_command

if find_spec("rl_zoo3") is None:
    raise ImportError(f"sb3_dqs.zoo needs rl_zoo3, which is not installed: {install_command('rl_zoo3')}", name="rl_zoo3")

from sb3_dqs.zoo.registration import register
from sb3_dqs.zoo.search_space import convert_dqs_params, sample_dqs_params
from sb3_dqs.zoo.settings import settings_path

__all__ = ["convert_dqs_params", "register", "sample_dqs_params", "settings_path"]

register()
