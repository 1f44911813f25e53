"""What does a killed run need beside its last checkpoint? Its replay buffer and its normalisation, as old as that one."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize


class CheckpointCompanions(BaseCallback):
    """
    Keep the newest ``VecNormalize`` statistics, and replay buffer, where the zoo's ``-i`` looks for them.

    The zoo saves both at the end of training only, so that a run which was killed would continue from its last
    checkpoint with others. One file of each, replaced as a whole, so that a kill while writing leaves the old one.

    :param save_freq: calls of ``env.step`` between two saves, as in SB3's ``CheckpointCallback``
    :param save_path: folder of the run
    :param params_path: folder of its settings
    :param keeps_buffer: whether the replay buffer, which may be large, is kept
    """

    def __init__(self, save_freq: int, save_path: str, params_path: str, keeps_buffer: bool):
        super().__init__()
        self.save_freq = save_freq
        self.save_path = Path(save_path)
        self.params_path = Path(params_path)
        self.keeps_buffer = keeps_buffer

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            assert isinstance(self.model, OffPolicyAlgorithm)
            if self.keeps_buffer:
                _replace(self.save_path / "replay_buffer.pkl", self.model.save_replay_buffer)
            vec_normalize = self.model.get_vec_normalize_env()
            if vec_normalize is not None:
                _replace(self.params_path / "vecnormalize.pkl", vec_normalize.save)
        return True


def has_finite_statistics(vec_normalize: VecNormalize | None) -> bool:
    """
    :param vec_normalize: of an environment that may have shown what is not finite
    :return: whether there are statistics that others may go on with
    """
    if vec_normalize is None:
        return False
    observed = getattr(vec_normalize, "obs_rms", None)  # not where observations are not normalised
    of_observations = observed.values() if isinstance(observed, dict) else [observed] if observed is not None else []
    all_statistics = [vec_normalize.ret_rms, *of_observations]
    return all(np.isfinite(values).all() for kept in all_statistics for values in (kept.mean, kept.var))


def _replace(path: Path, save: Callable[[str], None]) -> None:
    unfinished = path.with_suffix(".unfinished.pkl")
    save(str(unfinished))
    os.replace(unfinished, path)
