"""How does the policy explore? Its start noise is correlated over the steps of an episode; the law of each action stays."""

import torch as th

# Correlation times of the parts of the noise, steps: equal power in each factor of four, which makes the spectrum 1 / f.
CORRELATION_TIMES = (1.0, 4.0, 16.0, 64.0)


class PinkNoise:
    """
    Standard normal noise whose power over the steps of an episode falls as 1 / frequency.

    As start noise of the diffusion, it makes actions persist over short and long times, so that the states are explored
    as by a policy with a purpose; but each noise on its own is standard normal, so that each action is still drawn from
    the policy. A sum of Ornstein-Uhlenbeck processes: it needs no horizon.
    Source: pink noise as the default of exploration, Eberhard et al., ICLR 2023, openreview.net/forum?id=hQ9V5QN27eS

    :param n_envs: number of environments, whose noises are independent
    :param action_dim: size of the action, whose coordinates are independent
    """

    def __init__(self, n_envs: int, action_dim: int, device: th.device | str = "cpu"):
        decay = th.exp(-1 / th.tensor(CORRELATION_TIMES, device=device))
        self.decay = decay[:, None, None]
        self.renewal = (1 - self.decay**2).sqrt()
        self.parts = th.randn((len(CORRELATION_TIMES), n_envs, action_dim), device=device)

    def step(self) -> th.Tensor:
        """
        Go on by one step of the environments.

        :return: (n_envs, action_dim), each standard normal
        """
        self.parts = self.decay * self.parts + self.renewal * th.randn_like(self.parts)
        return self.parts.sum(dim=0) / len(CORRELATION_TIMES) ** 0.5

    def restart(self, env: int) -> None:
        """
        Forget the past of one environment, whose episode ended.

        :param env: its index
        """
        self.parts[:, env].normal_()
