"""
How spread out is a law of actions? Its differential entropy, without any density, from how well noise can be removed.

I-MMSE: the entropy of x = a + sigma * noise grows by the information rate d - mmse(sigma) / sigma^2 per ln sigma, and at
sigma_max it is that of a Gaussian. Here the mean of the rate over rows with stratified log-uniform sigma is the integral.
Source: Guo, Shamai and Verdu, arXiv:cs/0412108.
"""

import math

import torch as th


def boltzmann_entropy(
    squared_errors: th.Tensor, sigma: th.Tensor, sigma_min: float, sigma_max: float, action_dim: int
) -> th.Tensor:
    """
    Mean differential entropy of the Boltzmann law that the posteriors belong to, smoothed by the smallest noise.

    :param squared_errors: (batch, 1), E |a - E[a | x]|^2 under the posterior p(a | x), at noisy actions x of the law itself
    :param sigma: (batch, 1), stratified log-uniform over the noise range, action units
    :param sigma_min: smallest sigma of the noise range, the lower end of the integral, action units
    :param sigma_max: largest one, the upper end
    :param action_dim: size of the action
    :return: scalar, nats, for the whole action vector; ln 2 per dimension for a uniform law on [-1, 1]
    """
    # In place of the variance of the actions, which it comes near where sigma is well above it; below, it is too small, but
    # hardly counts beside sigma_max
    noisiest = sigma >= sigma.max() / 2
    action_variance = (squared_errors * noisiest).sum() / noisiest.sum() / action_dim
    information_rates = action_dim - squared_errors / sigma**2
    gaussian_entropy = action_dim / 2 * th.log(2 * math.pi * math.e * (sigma_max**2 + action_variance))
    return gaussian_entropy - information_rates.mean() * math.log(sigma_max / sigma_min)
