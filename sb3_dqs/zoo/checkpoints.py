"""What does a killed run need beside its last checkpoint? Its replay buffer and its normalisation, as old as that one."""

import os
from collections.abc import Callable
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm


class ReplayBufferCheckpoint(BaseCallback):
    """
    Keep the newest replay buffer and ``VecNormalize`` statistics where the zoo's ``-i`` looks for them.

    The zoo saves both at the end of training only, so that a run which was killed would continue from its last
    checkpoint with an empty buffer. One file of each, replaced as a whole, so that a kill while writing leaves the old one.

    :param save_freq: calls of ``env.step`` between two saves, as in SB3's ``CheckpointCallback``
    :param save_path: folder of the run
    :param params_path: folder of its settings
    """

    def __init__(self, save_freq: int, save_path: str, params_path: str):
        super().__init__()
        self.save_freq = save_freq
        self.save_path = Path(save_path)
        self.params_path = Path(params_path)

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            assert isinstance(self.model, OffPolicyAlgorithm)
            _replace(self.save_path / "replay_buffer.pkl", self.model.save_replay_buffer)
            vec_normalize = self.model.get_vec_normalize_env()
            if vec_normalize is not None:
                _replace(self.params_path / "vecnormalize.pkl", vec_normalize.save)
        return True


def _replace(path: Path, save: Callable[[str], None]) -> None:
    unfinished = path.with_suffix(".unfinished.pkl")
    save(str(unfinished))
    os.replace(unfinished, path)
