"""How random is the policy? The temperature of exp(Q / temperature): fixed, scheduled, or held by an entropy target."""

import math

import torch as th

# The first entropy target, nats per action dimension: just below ln 2 = 0.69 of the uniform law on [-1, 1], so hot that
# every mode is visited, whatever the scale of the rewards.
HOT_ENTROPY_PER_DIMENSION = 0.65

# Change of ln(temperature) per update and per nat of entropy error per dimension. The entropy of a Gaussian policy grows
# by half a nat per dimension and unit of ln(temperature), so errors decay within about 400 updates.
TEMPERATURE_GAIN = 5e-3

# Bounds of ln(temperature): only met when Q does not depend on the action at all.
MAX_ABS_LOG_TEMPERATURE = 20.0


class LogLinearSchedule:
    """
    Temperature that falls (or rises) log-linearly over the first part of training, then stays: the published annealing.

    An SB3 schedule: it maps ``progress_remaining``, from 1 to 0, to the temperature.

    :param initial: temperature at the start, > 0, in units of Q
    :param final: temperature from ``end_fraction`` on, > 0, in units of Q
    :param end_fraction: share of training after which ``final`` is reached, in (0, 1]
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, initial: float, final: float, end_fraction: float = 1.0):
        for name, value in (("initial", initial), ("final", final)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite temperature > 0, got {value}")
        if not 0 < end_fraction <= 1:
            raise ValueError(f"end_fraction must be in (0, 1], got {end_fraction}; use 1.0 to anneal until the end")
        self.initial, self.final, self.end_fraction = initial, final, end_fraction

    def __call__(self, progress_remaining: float) -> float:
        fraction = min(max((1 - progress_remaining) / self.end_fraction, 0.0), 1.0)
        return math.exp((1 - fraction) * math.log(self.initial) + fraction * math.log(self.final))

    def __repr__(self) -> str:
        return f"LogLinearSchedule(initial={self.initial}, final={self.final}, end_fraction={self.end_fraction})"


def cooling_entropy_target(n_updates: int, final_target: float, action_dim: int, cooling_updates: int) -> float:
    """
    Entropy target that starts near the uniform law and falls linearly to its final value.

    A goal that early noise leaves out is never visited again, at any later temperature. Entropy has no scale, so cooling
    by an entropy target is equally slow for small and large rewards.

    :param n_updates: updates done so far
    :param final_target: entropy target after cooling, nats, for the whole action vector
    :param action_dim: size of the action
    :param cooling_updates: number of updates until the final target is reached; 0 to start with it
    :return: entropy target, nats, for the whole action vector
    """
    hot_target = max(HOT_ENTROPY_PER_DIMENSION * action_dim, final_target)
    cooled = min(n_updates / cooling_updates, 1.0) if cooling_updates > 0 else 1.0
    return hot_target + cooled * (final_target - hot_target)


def updated_log_temperature(
    log_temperature: th.Tensor, entropy: th.Tensor, target_entropy: float, action_dim: int
) -> th.Tensor:
    """
    One step of the dual problem: heat when the policy's entropy is below its target, cool when above.

    Source: the automatic temperature of SAC, arXiv:1812.05905, with plain gradient steps on ln(temperature).

    :param log_temperature: scalar, ln of the temperature in units of Q
    :param entropy: scalar, nats, estimate for the whole action vector
    :param target_entropy: nats, for the whole action vector
    :param action_dim: size of the action
    :return: scalar
    """
    entropy_deficit = (target_entropy - entropy) / action_dim
    stepped = log_temperature + TEMPERATURE_GAIN * entropy_deficit
    return stepped.clamp(-MAX_ABS_LOG_TEMPERATURE, MAX_ABS_LOG_TEMPERATURE)
