"""How spread out is the policy? Its differential entropy, read off the denoiser without any density."""

import math

import torch as th


def denoiser_entropy(
    actions: th.Tensor,
    noisy_actions: th.Tensor,
    denoised_actions: th.Tensor,
    sigma: th.Tensor,
    sigma_min: float,
    sigma_max: float,
    sigma_data: float = 0.5,
) -> th.Tensor:
    """
    Mean differential entropy of the law of the actions, smoothed by N(0, sigma_min^2 I).

    I-MMSE: the entropy of x = a + sigma * noise grows by the information rate d - mmse(sigma) / sigma^2 per ln sigma, and
    at sigma_max it is that of a Gaussian. With the exact denoiser the rate has two unbiased one-sample forms,

        residual form   d - |a - D|^2 / sigma^2        (no noise left at large sigma)
        score form      |D - x|^2 / sigma^2            (no noise left at small sigma)

    and their mix weighted by sigma^2 / (sigma^2 + sigma_data^2) has a small fraction of the variance of either.
    Source: Guo, Shamai and Verdu, I-MMSE, arXiv:cs/0412108; the mix of both forms is ours.

    :param actions: (batch, action_dim), drawn from the policy
    :param noisy_actions: (batch, action_dim), actions + sigma * noise
    :param denoised_actions: (batch, action_dim), E[a | x] at the noisy actions
    :param sigma: (batch, 1), stratified log-uniform on [sigma_min, sigma_max], action units
    :param sigma_min: lower end of the integral, action units
    :param sigma_max: upper end of the integral, action units
    :param sigma_data: where the mix changes over, action units
    :return: scalar, nats, for the whole action vector; ln 2 per dimension for a uniform law on [-1, 1]
    """
    action_dim = actions.shape[1]
    squared_errors = ((actions - denoised_actions) ** 2).sum(dim=1, keepdim=True)
    residual_form = action_dim - squared_errors / sigma**2
    score_form = ((denoised_actions - noisy_actions) ** 2).sum(dim=1, keepdim=True) / sigma**2
    residual_share = sigma**2 / (sigma**2 + sigma_data**2)
    information_rate = residual_share * residual_form + (1 - residual_share) * score_form
    # At large sigma the denoiser knows little more than the mean, so its squared error is the variance of the actions.
    noisiest = sigma >= sigma.max() / 2
    action_variance = (squared_errors * noisiest).sum() / noisiest.sum() / action_dim
    gaussian_entropy = action_dim / 2 * th.log(2 * math.pi * math.e * (sigma_max**2 + action_variance))
    return gaussian_entropy - information_rate.mean() * math.log(sigma_max / sigma_min)
