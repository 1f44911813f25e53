"""Models to export: small, hardly trained, their actions at the walls as often as between them."""

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage

from sb3_dqs import DQS, PaperDQS
from tests.conftest import SMALL, SMALL_PAPER, RandomEnv

N_OBSERVATIONS = 1_000

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
DICT = spaces.Dict({"image": IMAGE, "speed": spaces.Box(-1e4, 1e4, (2,)), "gear": spaces.Discrete(4)})


class Asymmetric(RandomEnv):
    """Its action is a table of 1 x 2, each in bounds of its own."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.action_space = spaces.Box(np.float32([[-2.0, 0.0]]), np.float32([[-0.8, 5.0]]))


def in_vector(env, normalized=None):
    """:param normalized: keyword arguments of VecNormalize, if there is to be one; SB3 wants it above the layout of images"""
    env = DummyVecEnv([lambda: env])
    if normalized is None:
        return env
    if isinstance(env.observation_space, spaces.Dict):
        env = VecTransposeImage(env)
    return VecNormalize(env, norm_reward=False, **normalized)


def trained(algorithm, policy, observation_space, normalized=None, gain=5.0, **settings):
    """A model whose last layers are multiplied by a gain; settings that are not given are those of the small one."""
    env = in_vector(Asymmetric(observation_space), normalized)
    small = SMALL_PAPER if algorithm is PaperDQS else SMALL
    model = algorithm(policy, env, seed=0, **{**small, **settings}).learn(40)
    actor = model.policy.deployed_actor
    networks = [actor.diffusion.denoiser, actor.refiner] if algorithm is DQS else [actor.diffusion.score_network]
    for part in networks:
        part.network[-1].weight.data *= gain
    return model


def observations_for(model, observation_space, scale=1.0):
    """Raw ones, half of them far outside of what the model was trained on, and the actions that ``predict()`` gives there."""
    rng = np.random.default_rng(0)

    def draw(space):
        if isinstance(space, spaces.Dict):
            return {name: draw(part) for name, part in space.items()}
        if isinstance(space, spaces.Discrete):
            return rng.integers(0, space.n, N_OBSERVATIONS)
        if space.dtype == np.uint8:
            # as bright as each other, they would look alike to a network that nobody trained
            brightness = rng.random((N_OBSERVATIONS, 1, 1, 1))
            return (255 * brightness * rng.random((N_OBSERVATIONS, *space.shape))).astype(np.uint8)
        sizes = np.geomspace(0.1, 1e3, N_OBSERVATIONS).reshape(-1, *[1] * len(space.shape))
        return (scale * sizes * rng.standard_normal((N_OBSERVATIONS, *space.shape))).astype(space.dtype)

    observations = draw(observation_space)
    normalize = model.get_vec_normalize_env()
    given = observations if normalize is None else normalize.normalize_obs(observations)
    actions, _ = model.predict(given, deterministic=True)
    return observations, actions
