"""What is logged of a round of updates? The mean of each scalar, once all of them are known to be finite."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch as th

from sb3_dqs.checks import InputError


class UpdateLog:
    """Scalars of the updates of one round, which stay on their device until the round is over."""

    def __init__(self) -> None:
        # name -> number of the update -> value: not every update has every scalar
        self.scalars: dict[str, dict[int, th.Tensor]] = defaultdict(dict)
        self.last_update = 0

    def add(self, n_update: int, scalars: Mapping[str, th.Tensor]) -> None:
        """
        :param n_update: number of the update
        :param scalars: name -> scalar, detached
        """
        self.last_update = n_update
        for name, value in scalars.items():
            self.scalars[name][n_update] = value

    def means(self, state: Mapping[str, th.Tensor]) -> dict[str, float]:
        """
        One transfer from the device for all scalars.

        :param state: name -> scalar, as it is after the round
        :return: name -> mean over the updates that have the scalar, and the state
        :raises ValueError: if a scalar is not finite, naming the first update where it is not
        """
        logged = {**{name: th.stack([*values.values()]).mean() for name, values in self.scalars.items()}, **state}
        means = dict(zip(logged, th.stack([*logged.values()]).tolist(), strict=True))
        for name, mean in means.items():
            if not math.isfinite(mean):
                # none where their sum alone overflows, and where it is the state
                bad = (n for n, value in self.scalars.get(name, {}).items() if not math.isfinite(value))
                n_update, temperature = next(bad, self.last_update), means.get("temperature", math.nan)
                # ValueError prunes an Optuna trial
                raise InputError(
                    f"{name} is not finite at update {n_update}, temperature {temperature:.3g}. Look for NaN or infinite "
                    "rewards and observations (SB3's VecCheckNan finds those of steps, not what compute_reward gives "
                    "HerReplayBuffer for other goals); else try a smaller learning_rate, or VecNormalize for observations and "
                    "rewards. The networks may no longer be finite: go on from a model that was saved before."
                )
        return means
