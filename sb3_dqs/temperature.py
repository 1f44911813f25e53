"""How random is the policy? The temperature of exp(Q / temperature): scheduled, or held by an entropy target."""

import math
from collections.abc import Mapping
from typing import Any

import torch as th
from stable_baselines3.common.utils import FloatSchedule
from torch import nn

from sb3_dqs.checks import InputError, check_positive, check_share, hint_at_text, is_finite_number

# What ``target_entropy="auto"`` stands for, nats per action dimension; it is also SAC's
AUTO_ENTROPY_PER_DIMENSION = -1.0

# Of uniform actions, nats per action dimension
UNIFORM_ENTROPY = math.log(2)

# The relative temperature stays between these, in spreads of Q: where it is hotter, Q makes a difference of 0.005 nats; the
# colder end is met only when Q does not depend on the action at all.
HOTTEST, COLDEST = 10.0, math.exp(-20.0)

# A nearly uniform policy, in spreads of Q
DEFAULT_INITIAL = 3.0

# The running spread of Q stays above this, so that a critic that ignores the action leaves the temperature finite.
MIN_Q_SPREAD = 1e-8

# Of a run that is too short for ``cooling_updates``, this share cools; the rest learns at the final entropy
COOLING_SHARE_OF_RUN = 0.5

# The entropy of a Gaussian policy grows by half a nat per unit of log temperature: a larger gain overshoots
NEWTON_GAIN = 2.0

# What an update of the actor may measure: of its law, see :meth:`~sb3_dqs.diffusion.box.BoxDiffusion.regress`, and of what the
# refiner draws
MEASURED = ("q_spread", "entropy", "policy_entropy")


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
        check_share("end_fraction", end_fraction, "1.0 anneals until the end")
        self.initial, self.final, self.end_fraction = initial, final, end_fraction

    def __call__(self, progress_remaining: float) -> float:
        fraction = min(max((1 - progress_remaining) / self.end_fraction, 0.0), 1.0)
        return math.exp((1 - fraction) * math.log(self.initial) + fraction * math.log(self.final))

    def __repr__(self) -> str:
        return f"LogLinearSchedule(initial={self.initial}, final={self.final}, end_fraction={self.end_fraction})"


class Temperature(nn.Module):
    """
    What both kinds of temperature have in common: running means of what was measured, and the verbs that training uses.

    In each round of training :meth:`start_round`, before each update :meth:`start_update`, after an update of the actor
    :meth:`observe`; then :attr:`value` is the temperature, and :meth:`logged` what the log shows.

    :param measurement_rate: share of a new measurement in the running means, in (0, 1]: they average over about
        1 / ``measurement_rate`` updates of the actor
    """

    n_measurements: th.Tensor
    q_spread: th.Tensor
    entropy: th.Tensor
    policy_entropy: th.Tensor
    cooled_share: th.Tensor

    def __init__(self, measurement_rate: float = 0.01):
        super().__init__()
        check_share("measurement_rate", measurement_rate, "0.01 averages over about 100 updates of the actor")
        self.measurement_rate = measurement_rate
        self.register_buffer("n_measurements", th.zeros(()))
        for name, start in (("q_spread", 1.0), ("entropy", 0.0), ("policy_entropy", 0.0)):
            self.register_buffer(name, th.tensor(start))
        self.register_buffer("cooled_share", th.zeros(()))

    @property
    def value(self) -> th.Tensor:
        """Scalar, > 0, in units of Q."""
        raise NotImplementedError

    def start_round(self, progress_remaining: float) -> None:
        """
        :param progress_remaining: of training, from 1 to 0
        """

    def start_update(self, cooled_share: float) -> None:
        """
        :param cooled_share: how far the cooling has come, in [0, 1]
        """
        self.cooled_share.fill_(cooled_share)

    def observe(self, measures: Mapping[str, th.Tensor]) -> None:
        """
        Renew the running means: plain over the first 1 / ``measurement_rate`` measurements, then exponential.

        :param measures: name -> scalar; those in ``MEASURED`` are read, and others left alone
        :raises ValueError: if one of ``MEASURED`` is missing
        """
        if missing := set(MEASURED) - set(measures):
            raise InputError(
                f"temperature='auto' follows {sorted(missing)}, which the actor's regressions do not measure; let them, as "
                "those of DiffusionActor.regress do, or choose a number for temperature"
            )
        self.n_measurements += 1
        rate = (1 / self.n_measurements).clamp(min=self._rate())
        for name in MEASURED:
            mean = getattr(self, name)
            mean += rate * (measures[name] - mean)
        self.q_spread.clamp_(min=MIN_Q_SPREAD)

    def logged(self) -> dict[str, th.Tensor]:
        """
        :return: name -> scalar: the temperature, and the running means, whose entropies cannot pass that of uniform actions
        """
        values = {"temperature": self.value}
        if self.n_measurements > 0:
            values["q_spread"] = self.q_spread
            values |= {name: getattr(self, name).clamp(max=UNIFORM_ENTROPY) for name in ("entropy", "policy_entropy")}
        return values

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        # A model may be loaded with another kind of temperature than it was saved with: what was measured is kept
        own = self.state_dict()
        return super().load_state_dict({**own, **{k: v for k, v in state_dict.items() if k in own}}, strict, assign)

    def _rate(self) -> float | th.Tensor:
        return self.measurement_rate


class ScheduledTemperature(Temperature):
    """
    A temperature that is set beforehand: a constant, or a function of the progress of training.

    :param schedule: number or SB3 schedule, > 0 throughout training, in units of Q
    :param measurement_rate: see :class:`Temperature`
    :raises ValueError: if the schedule is not positive at its ends
    """

    scheduled: th.Tensor

    def __init__(self, schedule: Any, measurement_rate: float = 0.01):
        super().__init__(measurement_rate)
        for temperature in (schedule(1.0), schedule(0.0)) if callable(schedule) else (schedule,):
            check_positive("temperature", temperature, "for near-greedy actions use a small value such as 0.01")
        self.schedule = FloatSchedule(schedule if callable(schedule) else float(schedule))
        self.register_buffer("scheduled", th.tensor(self.schedule(1.0)))

    @property
    def value(self) -> th.Tensor:
        return self.scheduled

    def observe(self, measures: Mapping[str, th.Tensor]) -> None:
        """As :meth:`Temperature.observe`; without effect where the actor measures less, as the published one does."""
        if set(MEASURED) <= set(measures):
            super().observe(measures)

    def start_round(self, progress_remaining: float) -> None:
        """
        :param progress_remaining: of training, from 1 to 0
        :raises ValueError: if the schedule is not positive here
        """
        temperature = self.schedule(progress_remaining)
        check_positive("temperature", temperature, "a schedule must be positive throughout training")
        self.scheduled.fill_(temperature)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        # it follows from this schedule, and is saved for a temperature that is learned from there
        return super().load_state_dict({k: v for k, v in state_dict.items() if k != "scheduled"}, strict, assign)


class AutomaticTemperature(Temperature):
    """
    A temperature that is learned: it holds the entropy of the policy at a target, whatever the scale of the rewards. Only
    where Q differs between actions by less than the critic errs, about 0.01 with the default learning rate, does it follow the
    errors.

    It is relative to the spread of Q, the standard deviation of Q over the action box, which is followed as Q is learned. The
    target starts near the entropy of uniform actions and falls linearly with the cooling: a policy that cools faster than it
    explores gives up goals that early noise left out, and never visits them again at any later temperature. However fast the
    cooling is, the temperature can follow it; where the policy cannot, in less than about a thousand updates, it falls too far
    for a while.
    Source: the automatic temperature of SAC, arXiv:1812.05905, with plain gradient steps on the log temperature; our
    deviations: relative to the spread of Q, bounded steps.

    :param action_dim: size of the action
    :param target_entropy: nats for the whole action vector on the [-1, 1] box; ``"auto"`` is -1 per action dimension
    :param entropy_range: smallest and largest entropy that the policy can have, nats per action dimension: the target that it
        cools to must lie between them
    :param initial: start, > 0 and <= 10, relative to the spread of Q: 3 is a nearly uniform policy, and it never gets hotter
        than 10
    :param hot_entropy: first entropy target, nats per action dimension. What the refiner draws has less where the law is
        uniform (0.34 in one and two dimensions, 0.61 in six), so that the policy heats up as long as the target is
        higher, which keeps several modes alive.
    :param gain: change of the log temperature per update of the actor and nat of entropy error per dimension, > 0. The entropy
        of a Gaussian policy grows by half a nat per dimension and unit of log temperature, so small errors decay within
        about 2 / ``gain`` updates.
    :param max_step: largest change of the log temperature per update of the actor, > 0
    :param cooling_range: how far the log temperature may fall during the cooling, > 0: in a short one the gain, the largest
        step and the measurement rate grow in proportion to what that takes
    :param measurement_rate: see :class:`Temperature`
    :raises ValueError: if a setting is out of range
    """

    log_temperature: th.Tensor
    initial: th.Tensor
    stepped_at_share: th.Tensor

    def __init__(
        self,
        action_dim: int,
        target_entropy: str | float,
        entropy_range: tuple[float, float],
        initial: float = DEFAULT_INITIAL,
        hot_entropy: float = 0.65,
        gain: float = 5e-3,
        max_step: float = 2e-3,
        cooling_range: float = 5.0,
        measurement_rate: float = 0.01,
    ):
        super().__init__(measurement_rate)
        self.final_target = checked_target_entropy(target_entropy, action_dim, entropy_range) / action_dim
        check_positive("initial", initial, "3.0 starts with a nearly uniform policy")
        if initial > HOTTEST:
            raise InputError(f"initial must be at most {HOTTEST}, got {initial!r}; 3.0 starts with a nearly uniform policy")
        if not is_finite_number(hot_entropy) or hot_entropy >= UNIFORM_ENTROPY:
            raise InputError(
                f"hot_entropy must be a number < 0.69 nats, that of uniform actions, got {hot_entropy!r}; "
                f"{hint_at_text(hot_entropy)}0.65 starts with nearly uniform ones"
            )
        check_positive("gain", gain, "it is the change of the log temperature per nat and update of the actor")
        check_positive("max_step", max_step, "it is the largest change of the log temperature per update of the actor")
        check_positive("cooling_range", cooling_range, "it is how far the log temperature may fall during the cooling")
        self.hot_target = max(hot_entropy, self.final_target)
        self.gain, self.max_step, self.cooling_range = gain, max_step, cooling_range
        self.register_buffer("log_temperature", th.tensor(math.log(initial)))
        self.register_buffer("initial", th.tensor(float(initial)))
        # how far the cooling had come at the last step of the temperature
        self.register_buffer("stepped_at_share", th.zeros(()))

    @property
    def value(self) -> th.Tensor:
        return self.q_spread * self.log_temperature.exp()

    @property
    def target(self) -> th.Tensor:
        """Scalar, nats per action dimension: where the temperature is steered to."""
        return self.hot_target + self.cooled_share * (self.final_target - self.hot_target)

    def observe(self, measures: Mapping[str, th.Tensor]) -> None:
        """
        One step of the dual problem: heat when the entropy is below its target, cool when above.

        The entropy is that of the policy's actions given the mode that they belong to, see
        :class:`~sb3_dqs.diffusion.refiner.Refiner`: with a single mode that of the policy, as in SAC.

        :param measures: name -> scalar, with all of ``MEASURED``
        """
        super().observe(measures)
        deficit = self.target - self.policy_entropy
        pace = self._pace()
        max_step = self.max_step * pace
        gain = (self.gain * pace).clamp(max=max(self.gain, NEWTON_GAIN))
        self.log_temperature += (gain * deficit).clamp(-max_step, max_step)
        self.log_temperature.clamp_(math.log(COLDEST), math.log(HOTTEST))
        self.stepped_at_share.copy_(self.cooled_share)

    def logged(self) -> dict[str, th.Tensor]:
        """
        :return: name -> scalar: temperature, running means, and the entropy target
        """
        return {**super().logged(), "target_entropy": self.target}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        if state_dict.get("initial", DEFAULT_INITIAL) != self.initial:
            # loaded with another start, so started anew
            state_dict = {k: v for k, v in state_dict.items() if k not in ("initial", "log_temperature", "scheduled")}
        if "scheduled" in state_dict and state_dict["n_measurements"] > 0:
            # what was learned at a temperature that was set is kept: from a hot start it would be forgotten
            log_temperature = (state_dict["scheduled"] / state_dict["q_spread"]).log()
            log_temperature = log_temperature.clamp(math.log(COLDEST), math.log(HOTTEST))
            state_dict = {**state_dict, "log_temperature": log_temperature}
        if "stepped_at_share" not in state_dict and "cooled_share" in state_dict:
            # of a temperature that was set: what it has cooled so far is not this one's to make up for
            state_dict = {**state_dict, "stepped_at_share": state_dict["cooled_share"]}
        return super().load_state_dict(state_dict, strict, assign)

    def _pace(self) -> th.Tensor:
        """How many times ``max_step`` the cooling since the last step may take; at least once."""
        cooling = self.cooling_range * (self.cooled_share - self.stepped_at_share)
        return (cooling / self.max_step).clamp(min=1.0)

    def _rate(self) -> th.Tensor:
        return (self.measurement_rate * self._pace()).clamp(max=1.0)


def checked_target_entropy(target_entropy: Any, action_dim: int, entropy_range: tuple[float, float]) -> float:
    """
    :param target_entropy: nats for the whole action vector, or ``"auto"``
    :param action_dim: size of the action
    :param entropy_range: smallest and largest entropy that the policy can have, nats per action dimension
    :return: nats for the whole action vector
    :raises ValueError: if it is neither ``"auto"`` nor a number, or is not between them
    """
    is_auto = isinstance(target_entropy, str) and target_entropy == "auto"
    target = AUTO_ENTROPY_PER_DIMENSION * action_dim if is_auto else target_entropy
    smallest, largest = (entropy * action_dim for entropy in entropy_range)
    if not is_finite_number(target) or not smallest < target < largest:
        raise InputError(
            f"target_entropy must be 'auto' or a number of nats between {smallest:.2f}, that of the narrowest policy, and "
            f"{largest:.2f}, that of uniform actions given what they were refined from, got {target_entropy!r}; "
            f"{hint_at_text(target_entropy)}{AUTO_ENTROPY_PER_DIMENSION} per action dimension is 'auto', and must lie between "
            "them too: a larger relative_sigma of the refiner widens the range"
        )
    return float(target)


def cooled_share(n_updates: float, cooling_updates: int, steps_done: int, steps_in_run: int) -> float:
    """
    How far the cooling has come: it takes so many updates, or the first half of the run if that is shorter.

    :param n_updates: updates of the critic since the cooling began
    :param cooling_updates: number of updates that the cooling takes at most; 0 for none
    :param steps_done: environment steps of the run so far, after warm-up
    :param steps_in_run: environment steps of the whole run, after warm-up; <= 0 where it is warm-up alone, or not known
    :return: in [0, 1]
    """
    by_updates = n_updates / cooling_updates if cooling_updates > 0 else 1.0
    by_steps = steps_done / (COOLING_SHARE_OF_RUN * steps_in_run) if steps_in_run > 0 else 0.0
    return min(max(by_updates, by_steps), 1.0)
