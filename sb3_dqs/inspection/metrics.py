"""How close are samples to a law, and how many of several goals or modes does a policy keep?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch as th

from sb3_dqs.checks import InputError, as_integer, check_positive

# How far actions in float32 may lie outside of [-1, 1], and sums of probabilities from 1
ROUNDING = 1e-4


@dataclass(frozen=True)
class GoalStatistics:
    """
    :param success: share of the episodes that reached a goal, in [0, 1]
    :param goals_reached: number of different goals reached
    :param goal_entropy: of the goals reached, as a share of ln(number of goals), in [0, 1]
    :param goal_counts: how often each goal was reached
    """

    success: float
    goals_reached: int
    goal_entropy: float
    goal_counts: list[int]


def goal_statistics(goals: Sequence[int], n_goals: int) -> GoalStatistics:
    """
    How many goals does a policy reach, and how evenly?

    :param goals: of each episode: the index of the goal it reached, or -1
    :param n_goals: number of goals there are, >= 2
    :return: success rate, number of goals reached, normalised entropy and counts
    :raises ValueError: if there is no episode, or a goal out of range
    """
    n_goals = as_integer("n_goals", n_goals, 2, "the entropy of a single goal means nothing")
    reached = th.as_tensor(goals)
    if len(reached) == 0 or reached.is_floating_point() or reached.min() < -1 or reached.max() >= n_goals:
        raise InputError(f"goals must be indices in [-1, {n_goals}) of at least one episode, got {list(goals)!r}")
    counts = th.bincount(reached[reached >= 0], minlength=n_goals)
    success = int(counts.sum()) / len(reached)
    return GoalStatistics(success, int((counts > 0).sum()), normalised_entropy(counts), counts.tolist())


def maximum_mean_discrepancy(samples: th.Tensor, reference: th.Tensor, bandwidth: float) -> float:
    """
    Maximum mean discrepancy with the kernel exp(-|a - b|^2 / (2 bandwidth^2)): the root of the unbiased estimate.

    Source: Gretton et al., A kernel two-sample test, JMLR 2012.

    :param samples: (n, action_dim)
    :param reference: (m, action_dim), drawn from the law to compare with
    :param bandwidth: of the kernel, > 0, action units
    :return: >= 0; 0 where the unbiased estimate of its square is negative, as chance has it for equal laws
    :raises ValueError: if there are fewer than two samples of either law, or one is not finite
    """
    check_positive("bandwidth", bandwidth, "0.3 is that of distances_to_critic")
    samples, reference = _points("samples", samples, at_least=2), _points("reference", reference, at_least=2)
    _check_widths(samples, "reference", reference)

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

    :param counts: (k,), k >= 2, >= 0; or shares, whatever they add up to
    :return: in [0, 1]: 0 where all counts but one are 0 (or all are), 1 where all are equal
    :raises ValueError: if a count is negative, or there are fewer than two
    """
    if len(counts) < 2 or not (th.isfinite(counts) & (counts >= 0)).all():
        raise InputError(f"counts must be at least two numbers >= 0, got {counts.tolist()}")
    total = counts.double().sum()
    shares = counts.double() / (total if total > 0 else 1.0)
    # rounding may pass 1
    return min((th.special.entr(shares).sum() / math.log(len(counts))).item(), 1.0)


def sliced_wasserstein_2(samples: th.Tensor, reference: th.Tensor, directions: th.Tensor) -> float:
    """
    Sliced 2-Wasserstein distance: the root mean square over directions of W2 between the projections.

    Source: Bonneel et al., Sliced and Radon Wasserstein barycenters of measures, JMIV 2015.

    :param samples: (n, action_dim)
    :param reference: (n, action_dim), as many, drawn from the law to compare with
    :param directions: (n_directions, action_dim), of any length > 0, such as standard normal draws
    :return: >= 0, action units
    :raises ValueError: if there are not as many samples as reference draws, or a number is not finite
    """
    samples, reference = _points("samples", samples), _points("reference", reference)
    if samples.shape != reference.shape:
        raise InputError(
            f"samples and reference must have one shape, got {tuple(samples.shape)} and {tuple(reference.shape)}; "
            "draw as many from the law as from the policy"
        )
    directions = _points("directions", directions)
    lengths = directions.norm(dim=1, keepdim=True)
    if not (lengths > 0).all():
        raise InputError("directions must be of length > 0, got a zero; draw them from a standard normal law")
    # in one dimension the best transport keeps the order
    projected, projected_reference = (points @ (directions / lengths).T for points in (samples, reference))
    gaps = projected.sort(dim=0).values - projected_reference.sort(dim=0).values
    return (gaps**2).mean().sqrt().item()


def boltzmann_masses(
    q_fn: Callable[[th.Tensor], th.Tensor], temperature: float, action_dim: int, n_bins: int = 50, points_per_bin: int = 4
) -> th.Tensor:
    """
    Exact Boltzmann law exp(Q / temperature) / Z on the box, as the masses of equal bins, by the midpoint rule.

    :param q_fn: maps actions (n, 1, action_dim) in [-1, 1] to Q values (n, 1) of one observation
    :param temperature: > 0, in units of Q
    :param action_dim: 1 or 2
    :param n_bins: per dimension
    :param points_per_bin: points of the quadrature, per bin and dimension
    :return: (n_bins,) or (n_bins, n_bins), float64, summing to 1
    :raises ValueError: if the action has more than two dimensions, the temperature is not > 0, or Q not finite
    """
    check_positive("temperature", temperature, "it is in units of Q")
    if action_dim not in (1, 2):
        raise InputError(f"action_dim must be 1 or 2 for quadrature, got {action_dim}; compare samples by their MMD instead")
    n_bins = as_integer("n_bins", n_bins, 1, "50 is the default")
    points_per_bin = as_integer("points_per_bin", points_per_bin, 1, "4 is the default")
    shape = [n_bins * points_per_bin] * action_dim
    with th.no_grad():
        q_values = q_fn(cell_midpoints(shape).unsqueeze(1)).double().flatten()
    if not th.isfinite(q_values).all():
        raise InputError(
            f"q_fn must be finite on the box, got {q_values[~th.isfinite(q_values)][0].item()}; look for NaN, infinite or "
            "enormous values in the observation, and for NaN in the parameters of the critic"
        )
    # the exponents are taken from the largest one: at a tiny temperature Q over temperature has no float
    masses = th.softmax((q_values - q_values.max()) / temperature, dim=0)
    return merged_bins(masses.reshape(shape), points_per_bin)


def merged_bins(masses: th.Tensor, n_merged: int) -> th.Tensor:
    """
    :param masses: probability of each bin, d dimensions, each of a multiple of ``n_merged`` bins
    :param n_merged: so many neighbours along each dimension become one bin
    :return: probability of each of these, d dimensions
    """
    split = masses.reshape([size for n_bins in masses.shape for size in (n_bins // n_merged, n_merged)])
    return split.sum(dim=tuple(range(1, split.dim(), 2)))


def cell_midpoints(shape: Sequence[int]) -> th.Tensor:
    """
    :param shape: number of cells along each of d dimensions
    :return: (n_cells, d), the midpoints of equal cells of the box [-1, 1]^d, the last coordinate fastest
    """
    axes = [(th.arange(size) + 0.5) / size * 2 - 1 for size in shape]
    return th.stack(th.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(shape))


def draws_from_masses(masses: th.Tensor, n_draws: int) -> th.Tensor:
    """
    Exact draws from a law that is uniform within each of equal bins of the box [-1, 1]^d, by torch's global generator.

    :param masses: probability of each bin, d dimensions
    :param n_draws: number of draws
    :return: (n_draws, d), float64
    :raises ValueError: if the masses are no probabilities
    """
    bins = th.multinomial(_probabilities(masses).flatten(), n_draws, replacement=True)
    indices = th.stack(th.unravel_index(bins, masses.shape), dim=-1)
    widths = 2 / th.tensor(masses.shape, dtype=th.float64)
    return -1 + (indices + th.rand(indices.shape, dtype=th.float64)) * widths


def total_variation(samples: th.Tensor, masses: th.Tensor) -> float:
    """
    Total variation between a histogram of actions and a law on equal bins of the box [-1, 1]^d.

    Never zero for a finite number of samples, see :func:`total_variation_of_exact_draws`.

    :param samples: (n, d), or (n,) for d = 1; in [-1, 1]
    :param masses: probability of each bin, d dimensions, summing to 1
    :return: in [0, 1]
    :raises ValueError: if a sample lies outside of the box, or the masses are no probabilities
    """
    points, masses = _points("samples", samples[:, None] if samples.dim() == 1 else samples), _probabilities(masses)
    if points.shape[1] != masses.dim() or points.abs().max() > 1 + ROUNDING:
        raise InputError(
            f"samples must be actions of {masses.dim()} dimensions in [-1, 1], got {points.shape[1]} dimensions up to "
            f"{points.abs().max():.4g}; scale them by model.policy.scale_action"
        )
    # the histogram leaves out what lies outside
    histogram, _ = th.histogramdd(points.clamp(-1, 1), list(masses.shape), range=[-1.0, 1.0] * masses.dim())
    return min(0.5 * (histogram / len(points) - masses).abs().sum().item(), 1.0)


def total_variation_of_exact_draws(masses: th.Tensor, n_draws: int) -> float:
    """
    What :func:`total_variation` is expected to be between exact draws from a law and the law: the best that samples can do.

    :param masses: probability of each bin, summing to 1
    :param n_draws: number of draws
    :return: in [0, 1]; half the mean absolute deviation of a binomial count (de Moivre) over n, summed over the bins
    :raises ValueError: if the masses are no probabilities
    """
    # E |k - n p| of k ~ Binomial(n, p) is 2 m P(k = m) (1 - p), where m is the smallest integer > n p
    n_draws = as_integer("n_draws", n_draws, 1, "as many as samples were drawn")
    p = _probabilities(masses).flatten()
    m = (n_draws * p).floor() + 1
    inside = (p > 0) & (p < 1) & (m <= n_draws)
    p, m = p[inside], m[inside]
    n = th.tensor(float(n_draws), dtype=th.float64)
    log_binomial = th.lgamma(n + 1) - th.lgamma(m + 1) - th.lgamma(n - m + 1)
    log_mass = log_binomial + m * p.log() + (n - m) * th.log1p(-p)
    return (m * (1 - p) * log_mass.exp()).sum().item() / n_draws


def mode_masses(masses: th.Tensor, centres: th.Tensor, radius: float) -> th.Tensor:
    """
    Mass of a law on equal bins of the box that belongs to each of several centres, the nearest one within a distance.

    :param masses: probability of each bin, d dimensions
    :param centres: (n_modes, d), action units
    :param radius: > 0, action units
    :return: (n_modes,), in [0, 1]; each bin counts where its midpoint lies
    :raises ValueError: if the masses are no probabilities, or the radius is not > 0
    """
    check_positive("radius", radius, "it is the distance within which an action belongs to a centre")
    masses = _probabilities(masses)
    midpoints, centres = cell_midpoints(masses.shape).double(), _points("centres", centres)
    _check_widths(midpoints, "centres", centres)
    distances, nearest = th.cdist(midpoints, centres).min(dim=1)
    inside = distances < radius
    return th.zeros(len(centres), dtype=th.float64).index_add_(0, nearest[inside], masses.flatten()[inside])


def mode_shares(samples: th.Tensor, centres: th.Tensor, radius: float) -> th.Tensor:
    """
    Mode recovery: the share of the samples that belongs to each of several centres, the nearest one within a distance.

    :param samples: (n, d)
    :param centres: (n_modes, d)
    :param radius: > 0, in units of the samples
    :return: (n_modes,), in [0, 1], of sum at most 1; the number of modes recovered is the number of entries > 0
    :raises ValueError: if there is no sample, a number is not finite, or the radius not > 0
    """
    check_positive("radius", radius, "it is the distance within which a sample belongs to a centre")
    samples, centres = _points("samples", samples), _points("centres", centres)
    _check_widths(samples, "centres", centres)
    distances, nearest = th.cdist(samples, centres).min(dim=1)
    return th.bincount(nearest[distances < radius], minlength=len(centres)).double() / len(samples)


def _points(name: str, points: th.Tensor, at_least: int = 1) -> th.Tensor:
    """The points (n, d) in float64 on the CPU, or an error that names them."""
    if points.dim() != 2 or len(points) < at_least or not th.isfinite(points).all():
        raise InputError(
            f"{name} must be at least {at_least} finite points, (n, d), got shape {tuple(points.shape)} with "
            f"{int((~th.isfinite(points)).sum())} numbers that are not finite; look for NaN in what they were made from"
        )
    return points.detach().double().cpu()


def _check_widths(points: th.Tensor, name: str, others: th.Tensor) -> None:
    if points.shape[1] != others.shape[1]:
        raise InputError(f"{name} must have the {points.shape[1]} coordinates of the samples or bins, got {others.shape[1]}")


def _probabilities(masses: th.Tensor) -> th.Tensor:
    """The masses of bins in float64 on the CPU, or an error."""
    masses = masses.detach().double().cpu()
    if not (masses >= 0).all() or abs(masses.sum().item() - 1) > ROUNDING:
        raise InputError(f"masses must be numbers >= 0 of sum 1, got sum {masses.sum().item():.6g}; divide them by their sum")
    return masses
