"""Can it be learned from? What environments answer, before it is stored, and what others have stored, before it is learned."""

from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

from sb3_dqs.checks import InputError

# Said wherever a model would be shown observations that it never saw so
LACKS_STATISTICS = (
    "model was trained with VecNormalize and has no environment with its statistics; use "
    "load(path, env=VecNormalize.load(file, venv)), with the file that its save() wrote"
)

# How far stored actions may lie outside of [-1, 1], by rounding
ROUNDING = 1e-4


def check_transition(observations: Any, rewards: np.ndarray, is_counted: bool = False) -> None:
    """
    :param observations: of all environments, after a step; array or dictionary of arrays
    :param rewards: (n_envs,)
    :param is_counted: whether statistics of ``VecNormalize`` have taken them in
    :raises ValueError: if one is not finite in single precision: it would make the networks so
    """
    check_observations(observations, is_counted)
    _check_finite({"reward": rewards}, is_counted=is_counted)


def check_observations(observations: Any, is_counted: bool = False) -> None:
    """
    :param observations: first ones of all environments; array or dictionary of arrays
    :param is_counted: whether statistics of ``VecNormalize`` have taken them in
    :raises ValueError: if one is not finite in single precision
    """
    _check_finite(_named(observations), is_counted=is_counted)


def check_terminal_observation(observation: Any, environment: int) -> None:
    """
    :param observation: last of an episode; array, dictionary of arrays, or None where it is not known
    :param environment: its number
    :raises ValueError: if it is not finite: where time was over, its value counts
    """
    if observation is not None:
        _check_finite({name: np.asarray(values)[None] for name, values in _named(observation).items()}, environment)


def _named(observations: Any) -> dict[str, Any]:
    return observations if isinstance(observations, dict) else {"observation": observations}


def _check_finite(named: dict[str, Any], first_environment: int = 0, is_counted: bool = False) -> None:
    for name, values in named.items():
        values = np.asarray(values)
        if values.dtype.kind != "f":
            continue
        with np.errstate(over="ignore"):  # as the networks will take them
            is_finite = np.isfinite(values.astype(np.float32, copy=False))
        if not is_finite.all():
            index = int(np.argwhere(~is_finite)[0][0])
            precision = ", beyond single precision" if np.isfinite(values[index]).all() else ""
            counted = "; the statistics of VecNormalize have counted it, go on with saved ones" if is_counted else ""
            raise InputError(
                f"{name} of environment {first_environment + index} is not finite: {values[index]}{precision}. It was not "
                f"stored, so the model is as it was and can be saved{counted}; mend the environment (SB3's VecCheckNan finds "
                "the step), or replace such values in a wrapper of it"
            )


def check_batch(batch: ReplayBufferSamples | DictReplayBufferSamples) -> None:
    """
    :param batch: first of a round of updates
    :raises ValueError: if its actions are not on [-1, 1], as when demonstrations were stored unscaled
    """
    largest = float(batch.actions.abs().max())
    if not largest <= 1 + ROUNDING:
        raise InputError(
            f"the replay buffer holds an action of size {largest:.4g}; actions are stored scaled to [-1, 1], so pass "
            "demonstrations through model.policy.scale_action before they are added"
        )
