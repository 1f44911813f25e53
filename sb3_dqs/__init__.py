"""Diffusion Q-Sampling for Stable-Baselines3: the policy is the Boltzmann law exp(Q / temperature), sampled by diffusion."""

import sb3_dqs.envs  # noqa: F401  registers the environments with gymnasium
from sb3_dqs.dqs import DQS
from sb3_dqs.paper import PaperDQS
from sb3_dqs.policies import CnnPolicy, DiffusionPolicy, MlpPolicy, MultiInputPolicy
from sb3_dqs.temperature import LogLinearSchedule
from sb3_dqs.version import __version__

__all__ = [
    "DQS",
    "CnnPolicy",
    "DiffusionPolicy",
    "LogLinearSchedule",
    "MlpPolicy",
    "MultiInputPolicy",
    "PaperDQS",
    "__version__",
]
