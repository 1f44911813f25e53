"""What is logged of a round of updates? The mean of each figure, once all of them are known to be finite."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch as th

from sb3_dqs.checks import InputError


class UpdateLog:
    """Scalars of the updates of one round, which stay on their device until the round is over."""

    def __init__(self) -> None:
        # name -> number of the update -> value: not every update has every figure
        self.figures: dict[str, dict[int, th.Tensor]] = defaultdict(dict)

    def add(self, n_update: int, figures: Mapping[str, th.Tensor]) -> None:
        """
        :param n_update: number of the update
        :param figures: name -> scalar, detached
        """
        for name, value in figures.items():
            self.figures[name][n_update] = value

    def means(self, state: Mapping[str, th.Tensor]) -> dict[str, float]:
        """
        One transfer from the device for all figures.

        :param state: name -> scalar, as it is after the round
        :return: name -> mean over the updates that have the figure, and the state
        :raises ValueError: if a figure is not finite, naming the first update where it is not
        """
        rounds = {name: th.stack(list(values.values())) for name, values in self.figures.items()}
        scalars = {**{name: values.mean() for name, values in rounds.items()}, **state}
        means = dict(zip(scalars, th.stack([*scalars.values()]).tolist(), strict=True))
        for name, mean in means.items():
            if not math.isfinite(mean):
                values = rounds.get(name, scalars[name][None])
                # none, where their sum alone overflows
                first_bad = int((~th.isfinite(values)).int().argmax())
                numbers = [*self.figures.get(name, {}), self._last_update()]
                self._raise(name, numbers[first_bad], means.get("temperature", math.nan))
        return means

    def _last_update(self) -> int:
        return max((n_update for values in self.figures.values() for n_update in values), default=0)

    def _raise(self, name: str, n_update: int, temperature: float) -> None:
        # ValueError prunes an Optuna trial
        raise InputError(
            f"{name} is not finite at update {n_update}, temperature {temperature:.3g}. Look for NaN or infinite rewards and "
            "observations (SB3's VecCheckNan finds them); else try a smaller learning_rate, or VecNormalize for observations "
            "and rewards. The networks may no longer be finite: go on from a model that was saved before."
        )
