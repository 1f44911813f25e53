"""What would an average of its actor's weights do for CrossQ? sb3-contrib's algorithm, asked for actions as DQS is."""

import copy
from typing import Any, ClassVar

import numpy as np
import torch as th
from sb3_contrib import CrossQ
from sb3_contrib.crossq.policies import Actor, CrossQPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from sb3_dqs import DQS, DiffusionPolicy
from sb3_dqs.signatures import default_of


class AveragedCrossQPolicy(CrossQPolicy):
    """``CrossQPolicy`` whose ``predict()`` asks a running average of the actor, unless it explores."""

    actor_average: Actor
    n_averaged_actors: th.Tensor
    is_exploring: bool = False

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # a copy draws no random numbers, so that training takes the course of CrossQ itself
        self.actor_average = copy.deepcopy(self.actor)
        del self.actor_average.optimizer
        self.actor_average.set_training_mode(False)
        self.register_buffer("n_averaged_actors", th.zeros(()))

    # the very step of DQS
    update_average_of_actor: Any = DiffusionPolicy.update_average_of_actor

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        actor = self.actor if self.is_exploring else self.actor_average
        return actor(observation, deterministic)


class AveragedCrossQ(CrossQ):
    """
    ``CrossQ`` whose training is its own, and whose ``predict()`` asks the average that DQS keeps of its actor.

    One update per call of ``train``, as with the default ``gradient_steps=1``: the average follows each update of the actor.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": AveragedCrossQPolicy}
    policy: AveragedCrossQPolicy

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        assert gradient_steps == 1, "the average would miss updates of the actor"
        super().train(gradient_steps, batch_size)
        if self._n_updates % self.policy_delay == 0:
            self.policy.update_average_of_actor(default_of(DQS, "actor_tau"))

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        self.policy.is_exploring = True
        try:
            return super()._sample_action(*args, **kwargs)
        finally:
            self.policy.is_exploring = False
