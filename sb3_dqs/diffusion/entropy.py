"""
How spread out is a law of actions? Its differential entropy, without any density, from how well noise can be removed.

I-MMSE: the entropy of x = a + sigma * noise grows by the information rate d - mmse(sigma) / sigma^2 per ln sigma, and at
sigma_max it is that of a Gaussian. Here the mean of the rate over rows with stratified log-uniform sigma is the integral.
Source: Guo, Shamai and Verdu, arXiv:cs/0412108.
"""

import math

import torch as th


def boltzmann_entropy(
    squared_errors: th.Tensor, sigma: th.Tensor, noise_range: tuple[float, float], action_dim: int
) -> th.Tensor:
    """
    Mean differential entropy of the Boltzmann law that the posteriors belong to, smoothed by the smallest noise.

    :param squared_errors: (batch, 1), E |a - E[a | x]|^2 under the posterior p(a | x), at noisy actions x of the law itself
    :param sigma: (batch, 1), stratified log-uniform over the noise range, action units
    :param noise_range: smallest and largest sigma, the ends of the integral, action units
    :param action_dim: size of the action
    :return: scalar, nats, for the whole action vector; ln 2 per dimension for a uniform law on [-1, 1]
    """
    return _entropy_from_rates(action_dim - squared_errors / sigma**2, squared_errors, sigma, noise_range, action_dim)


def policy_entropy(
    actions: th.Tensor,
    noisy_actions: th.Tensor,
    denoised_actions: th.Tensor,
    sigma: th.Tensor,
    noise_range: tuple[float, float],
    sigma_data: float = 0.5,
) -> th.Tensor:
    """
    Mean differential entropy of the law that the actions were drawn from, smoothed by the smallest noise.

    With the exact denoiser of that law, the information rate has two unbiased one-sample forms,

        residual form   d - |a - D|^2 / sigma^2        (no noise left at large sigma)
        score form      |D - x|^2 / sigma^2            (no noise left at small sigma)

    and their mix weighted by sigma^2 / (sigma^2 + sigma_data^2) has a fraction of the variance of either; the mix is
    ours.

    :param actions: (batch, action_dim), drawn from the policy
    :param noisy_actions: (batch, action_dim), actions + sigma * noise
    :param denoised_actions: (batch, action_dim), E[a | x] at the noisy actions
    :param sigma: (batch, 1), stratified log-uniform over the noise range, action units
    :param noise_range: smallest and largest sigma, the ends of the integral, action units
    :param sigma_data: where the mix changes over, action units
    :return: scalar, nats, for the whole action vector; ln 2 per dimension for a uniform law on [-1, 1]
    """
    action_dim = actions.shape[1]
    squared_errors = ((actions - denoised_actions) ** 2).sum(dim=1, keepdim=True)
    residual_form = action_dim - squared_errors / sigma**2
    score_form = ((denoised_actions - noisy_actions) ** 2).sum(dim=1, keepdim=True) / sigma**2
    residual_share = sigma**2 / (sigma**2 + sigma_data**2)
    rates = residual_share * residual_form + (1 - residual_share) * score_form
    return _entropy_from_rates(rates, squared_errors, sigma, noise_range, action_dim)


def _entropy_from_rates(
    information_rates: th.Tensor,
    squared_errors: th.Tensor,
    sigma: th.Tensor,
    noise_range: tuple[float, float],
    action_dim: int,
) -> th.Tensor:
    sigma_min, sigma_max = noise_range
    # At large sigma the denoiser knows little more than the mean, so its squared error is the variance of the actions
    noisiest = sigma >= sigma.max() / 2
    action_variance = (squared_errors * noisiest).sum() / noisiest.sum() / action_dim
    gaussian_entropy = action_dim / 2 * th.log(2 * math.pi * math.e * (sigma_max**2 + action_variance))
    return gaussian_entropy - information_rates.mean() * math.log(sigma_max / sigma_min)
