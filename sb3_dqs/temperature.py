"""How random is the policy? The temperature of exp(Q / temperature): scheduled, or held by an entropy target."""

import math

import torch as th
from torch import nn

from sb3_dqs.checks import InputError, check_positive

# The first entropy target, nats per action dimension: just below ln 2 = 0.69 of the uniform law on [-1, 1], so hot that
# every mode is visited.
HOT_ENTROPY_PER_DIMENSION = 0.65

# Change of the log temperature per update of the actor: per nat of entropy error per dimension, and at most. The entropy of a
# Gaussian policy grows by half a nat per dimension and unit of log temperature, so small errors decay within about 400 of
# these updates.
ENTROPY_GAIN = 5e-3
MAX_STEP = 2e-3

# Share of a new measurement in the running means: averages over about 100 updates of the actor.
MEASUREMENT_RATE = 0.01

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
            check_positive(name, value, "temperatures are in units of Q; 0.05 is the published constant")
        check_positive("end_fraction", end_fraction, "1.0 anneals until the end")
        if end_fraction > 1:
            raise InputError(f"end_fraction must be in (0, 1], got {end_fraction!r}; 1.0 anneals until the end")
        self.initial, self.final, self.end_fraction = initial, final, end_fraction

    def __call__(self, progress_remaining: float) -> float:
        fraction = min(max((1 - progress_remaining) / self.end_fraction, 0.0), 1.0)
        return math.exp((1 - fraction) * math.log(self.initial) + fraction * math.log(self.final))

    def __repr__(self) -> str:
        return f"LogLinearSchedule(initial={self.initial}, final={self.final}, end_fraction={self.end_fraction})"


class Thermostat(nn.Module):
    """
    The temperature, and what the automatic temperature is steered by. All of it is saved with the model.

    An automatic temperature is relative to the spread of Q, the standard deviation of Q over the action box, which is
    followed as Q is learned: so it means the same at any scale of the rewards. A scheduled one is absolute.

    :param initial_temperature: > 0, in units of the spread of Q, which is 1 until it is measured
    :param action_dim: size of the action
    """

    log_temperature: th.Tensor
    n_measurements: th.Tensor
    q_spread: th.Tensor
    entropy: th.Tensor
    policy_entropy: th.Tensor
    target_entropy: th.Tensor

    def __init__(self, initial_temperature: float, action_dim: int):
        super().__init__()
        self.action_dim = action_dim
        self.register_buffer("log_temperature", th.tensor(math.log(initial_temperature)))
        self.register_buffer("n_measurements", th.zeros(()))
        for name, start in (("q_spread", 1.0), ("entropy", 0.0), ("policy_entropy", 0.0)):
            self.register_buffer(name, th.tensor(start))
        self.register_buffer("target_entropy", th.zeros(()), persistent=False)

    @property
    def temperature(self) -> th.Tensor:
        """Scalar, > 0, in units of Q."""
        return self.q_spread * self.log_temperature.exp()

    def follow(self, temperature: float) -> None:
        """
        Take the temperature of a schedule.

        :param temperature: in units of Q
        :raises ValueError: if it is not a finite number > 0
        """
        check_positive("temperature", temperature, "a schedule must be positive throughout training")
        # what was measured before, under an automatic temperature, neither scales this one nor a later automatic one
        self.q_spread.fill_(1.0)
        self.n_measurements.zero_()
        self.log_temperature.fill_(math.log(temperature))

    def measure(self, q_spread: th.Tensor, entropy: th.Tensor, policy_entropy: th.Tensor) -> None:
        """
        Renew the running means: plain over the first 1 / ``MEASUREMENT_RATE`` measurements, then exponential.

        :param q_spread: scalar, standard deviation of Q over the action box, in units of Q
        :param entropy: scalar, nats, estimate for the Boltzmann law
        :param policy_entropy: scalar, nats, estimate for the law that the policy samples
        """
        self.n_measurements += 1
        rate = (1 / self.n_measurements).clamp(min=MEASUREMENT_RATE)
        for mean, measured in ((self.q_spread, q_spread), (self.entropy, entropy), (self.policy_entropy, policy_entropy)):
            mean += rate * (measured - mean)
        self.q_spread.clamp_(min=MIN_Q_SPREAD)

    def aim_at(self, target_entropy: float) -> None:
        """
        Set where :meth:`step` steers.

        :param target_entropy: nats, for the whole action vector
        """
        self.target_entropy.fill_(target_entropy)

    def step(self) -> None:
        """
        One step of the dual problem: heat when the entropy is below its target, cool when above.

        The entropy is the mean of two: of the law that the policy aims at and of the law that it samples. The first comes
        out too low where few proposals count, so alone it would hold the policy too hot. The second alone would cool without
        end where the policy is still broader than its law; but there the first falls without bound as fewer proposals count.
        Source: the automatic temperature of SAC, arXiv:1812.05905, with plain gradient steps on the log temperature; our
        deviations: relative to the spread of Q, bounded steps, the mean of two entropies.
        """
        entropy_deficit = (self.target_entropy - (self.entropy + self.policy_entropy) / 2) / self.action_dim
        self.log_temperature += (ENTROPY_GAIN * entropy_deficit).clamp(-MAX_STEP, MAX_STEP)
        self.log_temperature.clamp_(-MAX_ABS_LOG_TEMPERATURE, MAX_ABS_LOG_TEMPERATURE)


def cooled_share(n_updates: int, cooling_updates: int) -> float:
    """
    How far the cooling has come.

    :param n_updates: updates done so far
    :param cooling_updates: number of updates that the cooling takes; 0 for none
    :return: in [0, 1]
    """
    return min(n_updates / cooling_updates, 1.0) if cooling_updates > 0 else 1.0


def cooling_entropy_target(cooled: float, final_target: float, action_dim: int) -> float:
    """
    Entropy target that starts near the uniform law and falls linearly to its final value.

    A policy that cools faster than it explores gives up goals that early noise left out, and never visits them again at
    any later temperature.

    :param cooled: share of the cooling that is done, in [0, 1]
    :param final_target: entropy target after cooling, nats, for the whole action vector
    :param action_dim: size of the action
    :return: entropy target, nats, for the whole action vector
    """
    hot_target = max(HOT_ENTROPY_PER_DIMENSION * action_dim, final_target)
    return hot_target + cooled * (final_target - hot_target)
