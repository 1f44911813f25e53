"""How random is the policy? The temperature of exp(Q / temperature): fixed, scheduled, or held by an entropy target."""

import math

import torch as th

# The first entropy target, nats per action dimension: just below ln 2 = 0.69 of the uniform law on [-1, 1], so hot that
# every mode is visited.
HOT_ENTROPY_PER_DIMENSION = 0.65

# Change of the log temperature per update: per nat of entropy error per dimension, and at most. The entropy of a Gaussian
# policy grows by half a nat per dimension and unit of log temperature, so small errors decay within about 400 updates.
ENTROPY_GAIN = 5e-3
MAX_STEP = 2e-3

# Share of a new measurement in the running spread of Q: an average over about 100 updates.
SPREAD_RATE = 0.01

# The log of the relative temperature stays within these bounds: only met when Q does not depend on the action at all.
MAX_ABS_LOG_TEMPERATURE = 20.0

# The running spread of Q stays above this, so that a critic that ignores the action leaves the temperature finite.
MIN_Q_SPREAD = 1e-8


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


def tracked_q_spread(q_spread: th.Tensor, measured: th.Tensor, n_updates: int) -> th.Tensor:
    """
    Running mean of the spread of Q over the action box.

    A plain mean over the first 1 / ``SPREAD_RATE`` updates, then exponential.

    :param q_spread: scalar, running mean so far, in units of Q
    :param measured: scalar, spread of Q in this update, in units of Q
    :param n_updates: number of measurements before this one
    :return: scalar, > 0
    """
    rate = max(SPREAD_RATE, 1 / (n_updates + 1))
    return (q_spread + rate * (measured - q_spread)).clamp(min=MIN_Q_SPREAD)


def cooling_entropy_target(n_updates: int, final_target: float, action_dim: int, cooling_updates: int) -> float:
    """
    Entropy target that starts near the uniform law and falls linearly to its final value.

    A policy that cools faster than it explores gives up goals that early noise left out, and never visits them again at
    any later temperature.

    :param n_updates: updates done so far
    :param final_target: entropy target after cooling, nats, for the whole action vector
    :param action_dim: size of the action
    :param cooling_updates: number of updates until the final target is reached; 0 to start with it
    :return: entropy target, nats, for the whole action vector
    """
    hot_target = max(HOT_ENTROPY_PER_DIMENSION * action_dim, final_target)
    cooled = min(n_updates / cooling_updates, 1.0) if cooling_updates > 0 else 1.0
    return hot_target + cooled * (final_target - hot_target)


def stepped_log_temperature(
    log_temperature: th.Tensor, entropy: th.Tensor, target_entropy: float, action_dim: int
) -> th.Tensor:
    """
    One step of the dual problem: heat when the policy's entropy is below its target, cool when above.

    Source: the automatic temperature of SAC, arXiv:1812.05905, with plain gradient steps on the log temperature; our
    deviation: steps are bounded, since the policy follows the temperature with a lag.

    :param log_temperature: scalar, ln of the temperature relative to the spread of Q
    :param entropy: scalar, nats, estimate for the whole action vector
    :param target_entropy: nats, for the whole action vector
    :param action_dim: size of the action
    :return: scalar
    """
    entropy_deficit = (target_entropy - entropy) / action_dim
    stepped = log_temperature + (ENTROPY_GAIN * entropy_deficit).clamp(-MAX_STEP, MAX_STEP)
    return stepped.clamp(-MAX_ABS_LOG_TEMPERATURE, MAX_ABS_LOG_TEMPERATURE)
