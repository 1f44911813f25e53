"""How far is a trial of a study? The zoo is silent while one trains, which may take an hour."""

import sys

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

# Seconds between two states of the bar: on a screen, and in a file
REFRESH_ON_SCREEN = 0.2
REFRESH_IN_FILE = 5.0


class TrialProgress(BaseCallback):
    """
    A bar of the environment steps of one trial, on the standard error, where Optuna tells the results.

    :param trial: number of the trial
    """

    def __init__(self, trial: int):
        super().__init__()
        self.bar = tqdm(
            desc=f"Trial {trial}",
            unit="step",
            leave=False,
            miniters=1,
            mininterval=REFRESH_ON_SCREEN if sys.stderr.isatty() else REFRESH_IN_FILE,
        )

    def _on_training_start(self) -> None:
        self.bar.reset(total=self.locals["total_timesteps"])

    def _on_step(self) -> bool:
        self.bar.update(self.training_env.num_envs)
        return True

    def close(self) -> None:
        """Take the bar away; also after a trial that ended with an error."""
        self.bar.close()
