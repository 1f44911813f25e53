"""How does a policy run where there is no torch? As one ONNX file, and so near to ``predict()``."""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_dqs.checks import InputError, as_integer
from sb3_dqs.critics import evaluating, smallest_q
from sb3_dqs.dqs import DQS
from sb3_dqs.export.deployed import (
    OBSERVATIONS,
    DeployedPolicy,
    Normalization,
    Statistics,
    observation_normalizations,
    parts_before_normalization,
    vec_normalize_of,
)
from sb3_dqs.extras import what_is_missing

# Name of the output; the inputs have the names of the parts of the observation
ACTIONS = "actions"

# Observations are drawn up to their bounds, unless these are beyond this
LARGEST_BOUND = 1e6

# Of names in the file: inputs as they are exported, and all that is neither input nor output
INPUT, INSIDE = "input of the policy, ", "inside/"


def export_onnx(
    model: DQS,
    path: str | os.PathLike,
    vec_normalize: Statistics | None = None,
    batch_size: int | None = None,
    channels_last: bool | None = None,
) -> Path:
    """
    Write the deterministic policy of a trained model as one ONNX file.

    It takes observations as the environment gives them, (batch, *shape), under the name ``observations``, or those of a
    dictionary under their own; it gives ``actions``, (batch, *action_shape), in the bounds of the action space. Where
    ``predict()`` raises an error at an observation that is no number, the file gives an action that is none.

    :param model: a trained model
    :param path: of the file; its folder is made where there is none
    :param vec_normalize: the statistics of observations that it was trained with, or the file that ``VecNormalize.save``
        wrote; by default those of the environment of the model, if it has one with statistics; ``False`` for a file that
        takes observations as they are after normalisation
    :param batch_size: number of observations that the file takes at once, >= 1; any number by default
    :param channels_last: whether images are (batch, height, width, channels), or have the channels first; by default as the
        environment of the model gives them
    :return: the path
    :raises ImportError: if the extra ``export`` is not installed
    :raises ValueError: if an argument is not usable, see also :class:`~sb3_dqs.export.deployed.DeployedPolicy`
    """
    _require("onnx", "onnxscript")
    if batch_size is not None:
        batch_size = as_integer("batch_size", batch_size, 1, "leave it out for a file that takes any number of observations")
    deployed = DeployedPolicy(model, vec_normalize, channels_last)
    if ACTIONS in deployed.names:
        raise InputError(f"an observation must not be named {ACTIONS!r}, as the output is; rename its key in the environment")
    # one row as example would fix the number of rows
    examples = deployed.examples(batch_size or 2)
    # one name for the one number that all parts share
    named = [th.export.Dim("batch"), *[th.export.Dim.AUTO] * (len(examples) - 1)]
    open_batch = {"observations": tuple({0: size} for size in named)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _without_notes_of_the_exporter():
        th.onnx.export(
            deployed,
            examples,
            path,
            input_names=[f"{INPUT}{number}" for number in range(len(examples))],
            output_names=[ACTIONS],
            dynamic_shapes=open_batch if batch_size is None else None,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _name_inputs(path, deployed.names)
    return path


def _name_inputs(path: Path, names: Sequence[str]) -> None:
    """
    Parts of an observation may have any name, also one that the exporter gave to something inside, which all gets a prefix.
    """
    import onnx

    program = onnx.load(path)
    graph = program.graph
    given = {ACTIONS: ACTIONS, "": "", **dict(zip([entry.name for entry in graph.input], names, strict=True))}

    prefix = INSIDE
    while any(part.startswith(prefix) for part in names):
        prefix += "/"

    def name(inside: str) -> str:
        return given.get(inside, f"{prefix}{inside}")

    for node in graph.node:
        node.input[:], node.output[:] = map(name, node.input), map(name, node.output)
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        entry.name = name(entry.name)
    onnx.checker.check_model(program)
    onnx.save(program, path)


class Comparison(NamedTuple):
    """
    An ONNX file beside ``predict(deterministic=True)``.

    ``differences``: (n_observations,), of the actions: the largest over the coordinates, in units of half the range of each.
    ``q_differences``: (n_observations,), of the smallest Q of both actions, over its size where that is above 1. Where
    candidates tie, a rounding decides which of them is the action: then actions differ, and their Q does not.
    ``n_candidates``: of ``predict()``.
    """

    differences: np.ndarray
    q_differences: np.ndarray
    n_candidates: int


def compare_with_predict(
    model: DQS,
    path: str | os.PathLike,
    vec_normalize: Statistics | None = None,
    n_observations: int = 1_000,
    seed: int = 0,
) -> Comparison:
    """
    Run an ONNX file beside ``predict(deterministic=True)``, at random observations.

    :param model: of which the file was written
    :param path: of the file
    :param vec_normalize: as for :func:`export_onnx`
    :param n_observations: drawn from the observation space, or, where they are normalised, from a normal law by the
        statistics; a multiple of the number that the file takes at once
    :param seed: of the draws
    :return: how far the actions, and their Q values, are apart
    :raises ImportError: if the extra ``export`` is not installed
    :raises ValueError: if ``n_observations`` is no such multiple
    """
    _require("onnxruntime")
    import onnxruntime

    n_observations = as_integer("n_observations", n_observations, 1, "1000 take seconds")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    batch_size = session.get_inputs()[0].shape[0]
    rows_at_once = batch_size if isinstance(batch_size, int) else n_observations
    if n_observations % rows_at_once:
        raise InputError(f"n_observations must be a multiple of the {rows_at_once} that {path} takes, got {n_observations}")
    known = vec_normalize_of(model, vec_normalize)
    normalizations = observation_normalizations(model, known)
    raw = _draw(parts_before_normalization(model, known, normalizations), normalizations, n_observations, seed)
    feeds = {entry.name: _laid_out_as(entry.shape[1:], raw[entry.name]) for entry in session.get_inputs()}
    batches = [
        {name: rows[start : start + rows_at_once] for name, rows in feeds.items()}
        for start in range(0, n_observations, rows_at_once)
    ]
    actions = np.concatenate([session.run([ACTIONS], batch)[0] for batch in batches])

    observations = raw if isinstance(model.observation_space, spaces.Dict) else raw[OBSERVATIONS]
    if known is not None:
        observations = known.normalize_obs(observations)
    predicted, _ = model.predict(observations, deterministic=True)
    both = np.stack([actions, predicted]).astype(np.float32)
    # float32 for the critic, also where the bounds of the actions are of double precision
    scaled = model.policy.scale_action(both).astype(np.float32).reshape(2, n_observations, -1)
    critic = model.policy.law_critic
    with evaluating(critic), th.no_grad():
        policy_input, _ = model.policy.obs_to_tensor(observations)
        q_values = smallest_q(critic, policy_input, th.as_tensor(scaled, device=model.device)).double().cpu().numpy()
    return Comparison(
        differences=np.abs(scaled[0] - scaled[1]).max(axis=1),
        q_differences=np.abs(q_values[0] - q_values[1]) / np.maximum(np.abs(q_values[1]), 1.0),
        n_candidates=model.n_action_candidates,
    )


@contextlib.contextmanager
def _without_notes_of_the_exporter() -> Iterator[None]:
    """It tells that torchvision is not there, which it does not need, and that torch uses what torch has deprecated."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _draw(
    parts: Mapping[str, spaces.Space], normalizations: dict[str, Normalization], n_rows: int, seed: int
) -> dict[str, np.ndarray]:
    """Raw observations; images have the channels first, as the model knows them."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, part in copy.deepcopy(dict(parts)).items():
        if name in normalizations:
            mean, std = normalizations[name].mean.numpy(), normalizations[name].std.numpy()
            rows = mean + std * rng.standard_normal((n_rows, *mean.shape))
            if np.issubdtype(part.dtype, np.integer):
                rows = rows.round().clip(part.low, part.high)  # type: ignore[attr-defined]
        else:
            part = _without_nominal_bounds(part)
            part.seed(seed)
            rows = np.stack([part.sample() for _ in range(n_rows)])
        drawn[name] = rows.astype(part.dtype)
    return drawn


def _without_nominal_bounds(space: spaces.Space) -> spaces.Space:
    """Some environments write the largest number there is where they mean that there is no bound."""
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return space
    low = np.where(space.low < -LARGEST_BOUND, -np.inf, space.low)
    high = np.where(space.high > LARGEST_BOUND, np.inf, space.high)
    return spaces.Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype)  # type: ignore[arg-type]


def _laid_out_as(shape: list[int], rows: np.ndarray) -> np.ndarray:
    return rows if list(rows.shape[1:]) == shape else np.ascontiguousarray(np.moveaxis(rows, 1, -1))


def _require(*modules: str) -> None:
    if is_missing := what_is_missing(*modules):
        raise ImportError(is_missing)
