"""What happens between the environment's observation and its action? All of it, as one torch module with nothing around it."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize, VecTransposeImage, is_vecenv_wrapped
from torch import nn

from sb3_dqs.checks import InputError
from sb3_dqs.diffusion.networks import clip_finite
from sb3_dqs.dqs import DQS

# Name of the observation where it is not a dictionary, which brings names of its own
OBSERVATIONS = "observations"

# What pickle raises, by its documentation, where a file is cut short, none of its own, or names what is not installed
UNREADABLE = (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, ValueError)

# Statistics, or the file that ``VecNormalize.save`` wrote, or none
Statistics = VecNormalize | str | os.PathLike | Literal[False]


class DeployedPolicy(nn.Module):
    """
    The deterministic action as ``predict()`` gives it, with what ``VecNormalize`` and the policy do before and after the
    network: from raw observations, as the environment gives them, to actions in the bounds of the action space.

    For ``torch.export`` and ``torch.jit.trace``; :func:`~sb3_dqs.export.onnx.export_onnx` writes it as an ONNX file. The
    networks are those of the model, and in evaluation mode from here on.

    :param model: a trained model
    :param vec_normalize: the statistics of observations that it was trained with, or the file that ``VecNormalize.save``
        wrote; by default those of the environment of the model, if it has one with statistics
    :param channels_last: whether images are (batch, height, width, channels), or have the channels first; by default as the
        environment of the model gives them
    :raises ValueError: if the model is not a :class:`~sb3_dqs.dqs.DQS`, if the statistics cannot be read or are those of other
        observations, if there are images and neither ``channels_last`` nor an environment tells their layout, or if there are
        none and it is given
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(self, model: DQS, vec_normalize: Statistics | None = None, channels_last: bool | None = None):
        super().__init__()
        if not isinstance(model, DQS):
            raise InputError(f"model must be a DQS or PaperDQS, got {type(model).__name__}; load it by the class it is of")
        self.policy = model.policy
        self.is_dict = isinstance(model.observation_space, spaces.Dict)
        statistics = vec_normalize_of(model, vec_normalize)
        normalizations = observation_normalizations(model, statistics)
        parts = parts_before_normalization(model, statistics, normalizations)
        images = [
            name
            for name, space in parts.items()
            # of statistics from a file nothing tells whether what they are of was an image
            if is_image_space(space, normalized_image=name in normalizations and statistics.venv is None)  # type: ignore[union-attr]
        ]
        if channels_last is not None and not images:
            raise InputError(f"channels_last={channels_last} is for images, and the model has none; leave it out")
        transposed = images if images and _channels_last(model, channels_last) else []
        self.names = list(parts)
        self.inputs = nn.ModuleList(
            RawObservation(space, normalizations.get(name), name in transposed) for name, space in parts.items()
        )
        assert isinstance(model.action_space, spaces.Box)
        self.action_shape = model.action_space.shape
        self.register_buffer("low", th.tensor(model.action_space.low))
        self.register_buffer("high", th.tensor(model.action_space.high))
        self.to(model.device).eval()

    def forward(self, *observations: th.Tensor) -> th.Tensor:
        """
        :param observations: (batch, *shape) each, in the order of ``names``, of the types that the environment gives
        :return: (batch, *action_shape), in the bounds of the action space
        """
        prepared = [prepare(values) for prepare, values in zip(self.inputs, observations, strict=True)]
        policy_input = dict(zip(self.names, prepared, strict=True)) if self.is_dict else prepared[0]
        scaled = self.policy._predict(policy_input, deterministic=True).reshape(-1, *self.action_shape)
        actions = self.low + 0.5 * (scaled + 1.0) * (self.high - self.low)
        return th.minimum(th.maximum(actions, self.low), self.high)

    def examples(self, batch_size: int) -> tuple[th.Tensor, ...]:
        """
        :param batch_size: number of observations
        :return: zeros that :meth:`forward` takes
        """
        return tuple(part.example(batch_size).to(self.low.device) for part in self.inputs)  # type: ignore[operator]


class RawObservation(nn.Module):
    """
    A part of the observation, as the environment gives it, made what the policy takes: normalised, channels first.

    :param space: of the part, not normalised, with the channels of an image first
    :param normalization: of the part, if it is normalised
    :param is_transposed: whether it is an image whose channels come last
    """

    def __init__(self, space: spaces.Space, normalization: "Normalization | None", is_transposed: bool):
        super().__init__()
        shape = space.shape or ()
        self.shape = (*shape[1:], shape[0]) if is_transposed else shape
        self.dtype = th.as_tensor(np.zeros((), space.dtype)).dtype
        self.normalize = normalization or nn.Identity()
        self.is_transposed = is_transposed

    def forward(self, values: th.Tensor) -> th.Tensor:
        """
        :param values: (batch, *shape)
        :return: the same, as the policy takes it
        """
        return self.normalize(values.permute(0, 3, 1, 2) if self.is_transposed else values)

    def example(self, batch_size: int) -> th.Tensor:
        return th.zeros((batch_size, *self.shape), dtype=self.dtype)


class Normalization(nn.Module):
    """
    What ``VecNormalize`` does to a part of the observation; in float64, as there, since observations far from zero would lose
    their variance to rounding.

    :param running: statistics of the part
    :param vec_normalize: that they belong to
    """

    mean: th.Tensor
    std: th.Tensor

    def __init__(self, running: RunningMeanStd, vec_normalize: VecNormalize):
        super().__init__()
        self.clip = vec_normalize.clip_obs
        self.register_buffer("mean", th.tensor(running.mean))
        self.register_buffer("std", th.tensor(np.sqrt(running.var + vec_normalize.epsilon)))

    def forward(self, values: th.Tensor) -> th.Tensor:
        """
        :param values: (batch, *shape), as the environment gives them
        :return: float32, of the same shape
        """
        return clip_finite((values.double() - self.mean) / self.std, self.clip).float()


def parts_of(space: spaces.Space) -> Mapping[str, spaces.Space]:
    """
    :param space: of observations
    :return: its parts by name; one part where it is no dictionary
    """
    return space.spaces if isinstance(space, spaces.Dict) else {OBSERVATIONS: space}


def parts_before_normalization(
    model: DQS, vec_normalize: VecNormalize | None, normalizations: Mapping[str, "Normalization"]
) -> Mapping[str, spaces.Space]:
    """
    :param model: a trained model
    :param vec_normalize: of :func:`vec_normalize_of`
    :param normalizations: of :func:`observation_normalizations`
    :return: parts of the model's observations, those that are normalised as they were before: ``VecNormalize`` makes another
        space of images, of real numbers. Where it comes from a file, which does not hold the environment, nothing tells the
        first one
    """
    ours = parts_of(model.observation_space)
    if vec_normalize is None or vec_normalize.venv is None:
        return ours
    theirs = parts_of(vec_normalize.venv.observation_space)
    return {name: theirs[name] if name in normalizations else space for name, space in ours.items()}


def vec_normalize_of(model: DQS, vec_normalize: Statistics | None) -> VecNormalize | None:
    """
    :param model: a trained model
    :param vec_normalize: as in :class:`DeployedPolicy`; a file is trusted, as by SB3
    :return: the statistics, if there are any
    :raises ValueError: if it is not a ``VecNormalize`` or a file of one, or left out for a model that cannot do without
    """
    if vec_normalize is False:
        return None
    if vec_normalize is None:
        if model.lacks_statistics:
            raise InputError(
                "vec_normalize must be given for a model that was trained with VecNormalize and has none: what its "
                "save() wrote (on the command line --vec-normalize FILE), or, in Python, False for a file that takes "
                "normalised observations"
            )
        return model.get_vec_normalize_env()
    if isinstance(vec_normalize, str | os.PathLike):
        path = Path(vec_normalize)
        if not path.is_file():
            raise InputError(f"vec_normalize must be a VecNormalize or the file that its save() wrote, and there is no {path}")
        try:
            vec_normalize = pickle.loads(path.read_bytes())
        except UNREADABLE as error:
            raise InputError(
                f"vec_normalize must be what VecNormalize.save() wrote, and {path} cannot be read: {error}"
            ) from error
    if not isinstance(vec_normalize, VecNormalize):
        raise InputError(
            f"vec_normalize must be a VecNormalize or the file that its save() wrote, got {type(vec_normalize).__name__}"
        )
    return vec_normalize


def observation_normalizations(model: DQS, vec_normalize: VecNormalize | None) -> dict[str, Normalization]:
    """
    :param model: a trained model
    :param vec_normalize: of :func:`vec_normalize_of`
    :return: of the parts of the observation that are normalised
    :raises ValueError: if ``vec_normalize`` belongs to other observations than the model
    """
    if vec_normalize is None or not vec_normalize.norm_obs:
        return {}
    statistics = vec_normalize.obs_rms
    running = statistics if isinstance(statistics, dict) else {OBSERVATIONS: statistics}
    ours = {name: space.shape for name, space in parts_of(model.observation_space).items()}
    theirs = {name: part.mean.shape for name, part in running.items()}
    if not theirs.items() <= ours.items():
        raise InputError(
            f"vec_normalize must be that of the model's training: it has observations of shapes {theirs}, the model has {ours}"
        )
    return {name: Normalization(part, vec_normalize) for name, part in running.items()}


def _channels_last(model: DQS, channels_last: bool | None) -> bool:
    if channels_last is not None:
        return channels_last
    if model.env is None:
        raise InputError(
            "channels_last must be True or False for a model with images that has no environment; True (on the command line "
            "--channels last) where the environment gives images of shape (height, width, channels), as most do"
        )
    return is_vecenv_wrapped(model.env, VecTransposeImage)
