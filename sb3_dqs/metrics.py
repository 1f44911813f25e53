"""How close are samples to a law, and how evenly are goals reached?"""

import torch as th


def maximum_mean_discrepancy(samples: th.Tensor, reference: th.Tensor, bandwidth: float) -> float:
    """
    Maximum mean discrepancy with the kernel exp(-|a - b|^2 / (2 bandwidth^2)): the root of the unbiased estimate.

    Source: Gretton et al., A kernel two-sample test, JMLR 2012.

    :param samples: (n, action_dim)
    :param reference: (m, action_dim), drawn from the law to compare with
    :param bandwidth: of the kernel, > 0, action units
    :return: >= 0; 0 where the unbiased estimate of its square is negative, as chance has it for equal laws
    """

    def mean_kernel(first: th.Tensor, second: th.Tensor, n_pairs: int, n_equal: int) -> th.Tensor:
        kernel = th.exp(-(th.cdist(first, second) ** 2) / (2 * bandwidth**2))
        # a sample is at distance 0 from itself, which the unbiased estimate leaves out
        return (kernel.sum() - n_equal) / n_pairs

    n, m = len(samples), len(reference)
    squared = (
        mean_kernel(samples, samples, n * (n - 1), n)
        + mean_kernel(reference, reference, m * (m - 1), m)
        - 2 * mean_kernel(samples, reference, n * m, 0)
    )
    return squared.clamp(min=0).sqrt().item()


def normalised_entropy(counts: th.Tensor) -> float:
    """
    Entropy of how often each of k outcomes was met, as a share of ln k.

    :param counts: (k,), k >= 2, >= 0
    :return: in [0, 1]: 0 where all counts but one are 0 (or all are), 1 where all are equal
    """
    shares = counts.double() / counts.sum().clamp(min=1)
    return (th.special.entr(shares).sum() / th.log(th.tensor(len(counts)).double())).item()


def total_variation(samples: th.Tensor, masses: th.Tensor) -> float:
    """
    Total variation between a histogram of scalar actions and a law on equal bins of [-1, 1].

    :param samples: (n,), in [-1, 1]
    :param masses: (n_bins,), probability of each bin, summing to 1
    :return: in [0, 1]
    """
    counts = th.histc(samples.double(), bins=len(masses), min=-1.0, max=1.0)
    return 0.5 * (counts / len(samples) - masses.double()).abs().sum().item()
