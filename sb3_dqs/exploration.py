"""How does the policy explore? By start noise that is correlated over the steps of an episode."""

import torch as th

EXPLORATION_NOISES = ("pink", "white")

# Correlation times of the parts of pink noise, steps: 1, 4, 16, 64. Equal power in each makes the spectrum 1 / f, within 20 %,
# for periods of about 6 to 300 steps.
SHORTEST_CORRELATION_TIME = 1.0
CORRELATION_TIME_RATIO = 4.0
N_CORRELATION_TIMES = 4


class PinkNoise:
    """
    Standard normal noise whose power falls as 1 / frequency, over the steps of an episode.

    As the start noise of the sampler it lets actions persist for a few and for many steps, so that the policy gets to states
    that independent draws average out. Over many episodes, the noise of a given step is standard normal as ever, and so the
    actions at a given first state have the law of the policy. At a later state they need not: how the episode came there
    tells something about the noise. TD targets and ``predict()`` draw their own, independent noise. A sum of
    Ornstein-Uhlenbeck processes of geometric correlation times.
    Source of pink noise as a default: Eberhard et al., ICLR 2023, https://openreview.net/forum?id=hQ9V5QN27eS

    :param n_envs: number of environments; their noises are independent
    :param action_dim: size of the action; its coordinates are independent
    :param device: where the noise is needed
    """

    def __init__(self, n_envs: int, action_dim: int, device: th.device | str = "cpu"):
        exponents = th.arange(N_CORRELATION_TIMES, device=device)[:, None, None]
        self.decay = th.exp(-1 / (SHORTEST_CORRELATION_TIME * CORRELATION_TIME_RATIO**exponents))
        self.innovation = (1 - self.decay**2).sqrt()
        self.parts = th.randn((N_CORRELATION_TIMES, n_envs, action_dim), device=device)

    def step(self) -> th.Tensor:
        """
        Go on by one step of the environments.

        :return: (n_envs, action_dim), each standard normal
        """
        self.parts = self.decay * self.parts + self.innovation * th.randn_like(self.parts)
        return self.parts.sum(dim=0) / N_CORRELATION_TIMES**0.5

    def restart(self, has_ended: th.Tensor) -> None:
        """
        Forget the past of environments whose episode has ended.

        :param has_ended: (n_envs,), bool
        """
        self.parts = th.where(has_ended[:, None], th.randn_like(self.parts), self.parts)
