"""What stands for operations of torch in programs that leave it? The same, written out in what every runtime has."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch as th

# Of the series of erfcx: place of its middle, where float32 is met best, and terms for an error of 2e-10
SERIES_MIDDLE = 3.0
N_SERIES_TERMS = 14


def erfcx_by_series(values: th.Tensor) -> th.Tensor:
    """
    exp(z^2) erfc(z) by its Chebyshev series on z >= 0, as exact as float32 is, and by reflection elsewhere.

    Source: Shepherd and Laframboise, Mathematics of Computation 36 (1981): (1 + 2 z) erfcx(z) as a function of
    (z - k) / (z + k), which maps z >= 0 to [-1, 1]; our deviations: another k, and T_n(s) = cos(n arccos(s)), which is a
    handful of operations for all terms together.

    :param values: any shape
    :return: same shape; not for gradients
    """
    size = values.abs()
    angles = ((size - SERIES_MIDDLE) / (size + SERIES_MIDDLE)).acos()
    orders = th.arange(N_SERIES_TERMS, dtype=values.dtype, device=values.device)
    coefficients = th.tensor(SERIES, dtype=values.dtype, device=values.device)
    of_size = (angles.unsqueeze(-1) * orders).cos().matmul(coefficients) / (1 + 2 * size)
    return th.where(values < 0, 2 * (size * size).exp() - of_size, of_size)


def expm1_by_tanh(values: th.Tensor) -> th.Tensor:
    """
    exp(z) - 1 without cancellation, for z <= 0.

    :param values: any shape, <= 0
    :return: same shape
    """
    half = (values / 2).tanh()
    return 2 * half / (1 - half)


def add_quotient(values: th.Tensor, dividend: th.Tensor, divisor: th.Tensor, *, value: float) -> th.Tensor:
    """
    :param values: any shape
    :param dividend: same shape, or broadcastable
    :param divisor: same shape
    :param value: factor of the quotient
    :return: values + value * dividend / divisor
    """
    return values + value * dividend / divisor


class Operations(NamedTuple):
    """
    :param erfcx: exp(z^2) erfc(z)
    :param expm1: exp(z) - 1 for z <= 0
    :param addcdiv: as ``torch.addcdiv``

    The last two may put the result in the place of their first argument.
    """

    erfcx: Callable[[th.Tensor], th.Tensor]
    expm1: Callable[[th.Tensor], th.Tensor]
    addcdiv: Callable[..., th.Tensor]


OF_TORCH = Operations(th.special.erfcx, th.Tensor.expm1_, th.Tensor.addcdiv_)
WRITTEN_OUT = Operations(erfcx_by_series, expm1_by_tanh, add_quotient)


def available_operations() -> Operations:
    """
    torch's own, or, while a program is traced or exported, those that are written out.

    ONNX has no erfcx: one exporter stops there, the other takes the product at its word, infinity times zero from z = 10 on.
    The one that traces knows none of the three.

    :return: to be asked for once per program, since asking takes time
    """
    return WRITTEN_OUT if th.compiler.is_exporting() or th.jit.is_tracing() else OF_TORCH


def _series_of_erfcx() -> list[float]:
    """Coefficients of the interpolation at the zeros of the first Chebyshev polynomial that is left out."""
    angles = [math.pi * (zero + 0.5) / N_SERIES_TERMS for zero in range(N_SERIES_TERMS)]
    places = [SERIES_MIDDLE * (1 + math.cos(angle)) / (1 - math.cos(angle)) for angle in angles]
    erfcx_there = th.special.erfcx(th.tensor(places, dtype=th.float64, device="cpu")).tolist()
    heights = [(1 + 2 * place) * value for place, value in zip(places, erfcx_there, strict=True)]
    sums = [sum(h * math.cos(n * a) for h, a in zip(heights, angles, strict=True)) for n in range(N_SERIES_TERMS)]
    return [(2 - (n == 0)) / N_SERIES_TERMS * total for n, total in enumerate(sums)]


SERIES = _series_of_erfcx()
