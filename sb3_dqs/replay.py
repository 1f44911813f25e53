"""Does the replay buffer fit settings, environments and their episodes? N-step returns are those of SB3's own buffer."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_dqs.checks import InputError

if TYPE_CHECKING:
    from sb3_dqs.dqs import DQS


def check_replay_buffer_settings(model: "DQS") -> None:
    """
    :param model: about to be set up
    :raises ValueError: if a setting of its buffer is none, or contradicts another
    """
    if not isinstance(model.replay_buffer_kwargs, dict):
        raise InputError(f"replay_buffer_kwargs must be a dictionary, got {model.replay_buffer_kwargs!r}")
    if model.optimize_memory_usage and model.replay_buffer_kwargs.get("handle_timeout_termination", True):
        raise InputError(
            "optimize_memory_usage=True cannot tell timeouts from ends; pass "
            "replay_buffer_kwargs=dict(handle_timeout_termination=False) with it, or leave it out"
        )
    chosen = model.replay_buffer_class
    if chosen is not None and not (isinstance(chosen, type) and issubclass(chosen, ReplayBuffer)):
        raise InputError(f"replay_buffer_class must be a ReplayBuffer of SB3 or None, got {chosen!r}")
    for name in ("n_steps", "gamma"):
        if name in model.replay_buffer_kwargs:
            raise InputError(
                f"replay_buffer_kwargs must not hold {name!r}; pass {name} as an argument of {type(model).__name__}"
            )
    if model.n_steps == 1:
        return
    if isinstance(model.observation_space, spaces.Dict):
        raise InputError(f"n_steps={model.n_steps} needs observations that are no Dict: SB3 has no such buffer; use n_steps=1")
    if chosen not in (None, ReplayBuffer) and not issubclass(chosen, NStepReplayBuffer):
        raise InputError(
            f"n_steps={model.n_steps} needs SB3's NStepReplayBuffer, and {chosen.__name__} has one-step returns; leave "
            "replay_buffer_class out, or use n_steps=1"
        )


def replay_buffer_settings(model: "DQS") -> dict[str, Any]:
    """
    What SB3 is to build the buffer from: it knows n-step returns of its own class alone, and writes into what the user gave.

    :param model: about to be set up
    :return: name -> value of settings of the model, for as long as SB3 sets it up
    """
    chosen, kwargs = model.replay_buffer_class, dict(model.replay_buffer_kwargs)
    if model.n_steps > 1 and chosen in (None, ReplayBuffer):
        chosen = NStepReplayBuffer
    if chosen is not None and issubclass(chosen, NStepReplayBuffer):
        kwargs |= {"n_steps": model.n_steps, "gamma": model.gamma}
    return {"replay_buffer_class": chosen, "replay_buffer_kwargs": kwargs, "n_steps": 1}


def check_replay_buffer(model: "DQS") -> None:
    """
    :param model: about to learn
    :raises ValueError: if its buffer, loaded or assigned, does not fit its environments or settings
    """
    buffer = model.replay_buffer
    if buffer is None:
        return
    n_steps = buffer.n_steps if isinstance(buffer, NStepReplayBuffer) else 1
    if n_steps != model.n_steps:
        raise InputError(
            f"the replay buffer has returns of {n_steps} steps, and n_steps of the model is {model.n_steps}; continue with "
            f"load(path, n_steps={n_steps}), or without the buffer"
        )
    if buffer.n_envs != model.n_envs:
        raise InputError(
            f"the replay buffer holds transitions of {buffer.n_envs} environments, and the model has {model.n_envs}; continue "
            f"with {buffer.n_envs} environments, or without the buffer"
        )
    for what in ("observation_space", "action_space"):
        stored, ours = (_layout(getattr(of, what)) for of in (buffer, model))
        if stored != ours:
            raise InputError(
                f"the replay buffer holds transitions of another {what}, {stored}, and that of the model is {ours}; continue "
                "with the environment that it was filled in, and its wrappers, or without the buffer"
            )


def check_wrappers(env: VecEnv) -> None:
    """
    :param env: environments of a model, with their wrappers
    :raises ValueError: if a wrapper above ``VecNormalize`` changes the layout of observations: they are stored as they were
        below it
    """
    stored, ours = (None if of is None else _layout(of.observation_space) for of in (unwrap_vec_normalize(env), env))
    if stored is not None and stored != ours:
        raise InputError(
            "env has VecNormalize below a wrapper that changes observations, which are stored as they were before it: "
            f"{stored}, and the model sees {ours}; wrap it last, for images as VecNormalize(VecTransposeImage(venv), ...)"
        )


def _layout(space: spaces.Space) -> Any:
    """What arrays of a buffer depend on, in words: bounds may differ, and so may the precision of real numbers."""
    if isinstance(space, spaces.Dict):
        return {name: _layout(part) for name, part in space.items()}
    if not isinstance(space, spaces.Box):
        return str(space)
    return f"Box of shape {space.shape} and type {'float' if np.issubdtype(space.dtype, np.floating) else space.dtype}"


def end_episodes(buffer: ReplayBuffer | None) -> None:
    """
    Tell the buffer that the environments start anew: where it derives something from the order of its transitions, an episode
    that was running would go on with the first steps of the next one.

    :param buffer: may be empty
    """
    if buffer is None or buffer.size() == 0:
        return
    last = (buffer.pos - 1) % buffer.buffer_size
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it does so
            buffer.truncate_last_trajectory()
    elif isinstance(buffer, NStepReplayBuffer):
        # what has ended in earnest stays so
        buffer.timeouts[last] = np.maximum(buffer.timeouts[last], 1 - buffer.dones[last])
    elif buffer.optimize_memory_usage:
        # its next observation will be overwritten by the first of the next episode
        buffer.dones[last] = True


def fit_parts(model: "DQS") -> None:
    """
    Let what was loaded, or made for other environments, be as the model is now: the discount of n-step returns, where rewards
    of other goals are asked for, and the noise, which SB3 keeps for as many environments as there were first.

    :param model: about to learn, with a buffer that fits
    """
    if isinstance(model.replay_buffer, NStepReplayBuffer):  # its returns are summed as they are sampled
        model.replay_buffer.gamma = model.gamma
    if isinstance(model.replay_buffer, HerReplayBuffer):  # it asks its environment for the rewards of other goals
        model.replay_buffer.env = model.env
    fit_action_noise(model)


def fit_action_noise(model: "DQS") -> None:
    """Each environment gets its own noise: SB3 sees to that when a run begins, if it has not before."""
    noise, n_envs = model.action_noise, model.n_envs
    is_for = noise.n_envs if isinstance(noise, VectorizedActionNoise) else 1
    if noise is not None and is_for != n_envs:
        # past LiveSettings, which would ask here again
        model.__dict__["action_noise"] = VectorizedActionNoise(getattr(noise, "base_noise", noise), n_envs)
