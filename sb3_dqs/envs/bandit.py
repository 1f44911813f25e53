"""Does a policy sample the law it should? A contextual bandit whose Boltzmann law is known in closed form."""

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dqs.checks import InputError, check_choice, check_positive, is_finite_number
from sb3_dqs.envs.arena import IMAGE_SIZE, POSITION_COLOUR, checked_options, checked_vector

# How far the context, in [-1, 1], moves the peaks along every coordinate, action units
CONTEXT_SHIFT = 0.2

LAW_COLOUR = (120, 160, 220)


@dataclass(frozen=True)
class Landscape:
    """
    Peaks of a law on [-1, 1]^d: normal laws truncated to the box, over a uniform background that keeps rewards bounded.

    :param centres: of the peaks, for context 0; in every context in the box, or within 3 widths of it, in each coordinate
    :param weights: of the peaks, summing to 1
    :param width: standard deviation of every peak, action units
    :param background: mass of the uniform law on the box, in (0, 1); the peaks share the rest
    :raises ValueError: if these are no law
    """

    centres: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    width: float
    background: float = 0.05

    def __post_init__(self) -> None:
        if len({len(centre) for centre in self.centres}) != 1 or not np.isfinite(self.centres).all() or not self.centres[0]:
            raise InputError(f"centres must be points of one number of dimensions, got {self.centres!r}")
        is_law = all(is_finite_number(weight) and weight >= 0 for weight in self.weights)
        if len(self.weights) != len(self.centres) or not is_law or not math.isclose(sum(self.weights), 1):
            raise InputError(f"weights must be {len(self.centres)} numbers >= 0 that sum to 1, got {self.weights!r}")
        check_positive("width", self.width, "it is the standard deviation of a peak, on [-1, 1]")
        farthest = np.abs(self.centres).max() + CONTEXT_SHIFT
        if farthest > 1 + 3 * self.width:
            raise InputError(
                f"centres must lie in the box, or within 3 widths of it in every context, got {self.centres!r} of width "
                f"{self.width}, which moves by {CONTEXT_SHIFT}; move them inwards"
            )
        if not is_finite_number(self.background) or not 0 < self.background < 1:
            raise InputError(f"background must be a number in (0, 1), got {self.background!r}; 0.05 is the default")


def _circle(n_peaks: int, radius: float) -> tuple[tuple[float, ...], ...]:
    angles = [2 * math.pi * k / n_peaks for k in range(n_peaks)]
    return tuple((radius * math.cos(angle), radius * math.sin(angle)) for angle in angles)


LANDSCAPES = {
    "two_peaks": Landscape(((0.5,), (-0.5,)), (0.7, 0.3), width=0.15),
    # narrow against the sampler's grid of noise levels
    "three_peaks": Landscape(((-0.6,), (0.0,), (0.6,)), (0.5, 0.3, 0.2), width=0.12, background=0.02),
    "wall": Landscape(((1.0,),), (1.0,), width=0.3),
    "four_peaks": Landscape(((0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5)), (0.4, 0.3, 0.2, 0.1), width=0.15),
    # neighbours are 0.16 apart, less than twice their width: together an even ridge
    "ring": Landscape(_circle(24, 0.6), (1 / 24,) * 24, width=0.1),
}


class BanditEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    Contextual bandit: episodes of one step, whose reward is ``temperature`` times the log of a chosen law.

    So the Boltzmann law exp(reward / temperature) is that law itself: peaks of known weights and widths, moved by the
    context along every coordinate. Uniform actions would have reward 0 if the law were uniform. Observation: the context, in
    [-1, 1]. Action: in [-1, 1]^d.

    :param landscape: name of one of ``LANDSCAPES`` (1-D ``"two_peaks"``, ``"three_peaks"``, ``"wall"``; 2-D
        ``"four_peaks"``, ``"ring"``), or a :class:`Landscape`
    :param temperature: at which the Boltzmann law is the chosen one, > 0, in units of reward
    :param render_mode: ``"rgb_array"``, with one or two action dimensions, or None
    :raises ValueError: if there is no such landscape, the temperature is not positive, or there is nothing to render
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, landscape: str | Landscape = "two_peaks", temperature: float = 1.0, render_mode: str | None = None):
        if isinstance(landscape, str):
            check_choice("landscape", landscape, LANDSCAPES)
            landscape = LANDSCAPES[landscape]
        check_positive("temperature", temperature, "1.0 is the default")
        self.landscape = landscape
        self.temperature = temperature
        self.render_mode = render_mode
        self.action_dim = len(landscape.centres[0])
        if render_mode is not None and self.action_dim > 2:
            raise InputError(
                f"render_mode must be None with {self.action_dim} action dimensions, got {render_mode!r}: pictures have two"
            )
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (self.action_dim,), np.float32)
        self.context_rng: np.random.Generator | None = None
        self.context = 0.0
        self.last_action: np.ndarray | None = None

    def centres(self, context: float) -> np.ndarray:
        """
        :param context: in [-1, 1]
        :return: (n_peaks, action_dim), centres of the peaks
        """
        return np.array(self.landscape.centres) + CONTEXT_SHIFT * context

    def density(self, actions: np.ndarray, context: float) -> np.ndarray:
        """
        The Boltzmann law of the reward, per unit of action volume.

        :param actions: (..., action_dim), in [-1, 1]
        :param context: in [-1, 1]
        :return: (...), integrates to 1 over the box
        """
        width, centres = self.landscape.width, self.centres(context)
        scaled = (np.asarray(actions, dtype=np.float64)[..., None, :] - centres) / width
        mass_inside = _normal_cdf((1 - centres) / width) - _normal_cdf((-1 - centres) / width)
        peaks = (np.exp(-(scaled**2) / 2) / (width * math.sqrt(2 * math.pi) * mass_inside)).prod(axis=-1)
        background = self.landscape.background
        return background / 2**self.action_dim + (1 - background) * peaks @ np.array(self.landscape.weights)

    def draw(self, n_draws: int, context: float, rng: np.random.Generator) -> np.ndarray:
        """
        :param n_draws: number of draws
        :param context: in [-1, 1]
        :param rng: source of randomness
        :return: (n_draws, action_dim), exact draws from the Boltzmann law
        """
        draws = rng.uniform(-1.0, 1.0, (n_draws, self.action_dim))
        peaks = rng.choice(len(self.landscape.weights), n_draws, p=self.landscape.weights)
        # from the peaks, by drawing again what fell outside the box
        waiting = rng.random(n_draws) >= self.landscape.background
        while waiting.any():
            tried = self.centres(context)[peaks[waiting]]
            tried = tried + self.landscape.width * rng.standard_normal(tried.shape)
            draws[waiting] = tried
            waiting[waiting] = (np.abs(tried) > 1).any(axis=1)
        return draws

    def reward(self, actions: np.ndarray, context: float) -> np.ndarray:
        """
        :param actions: (..., action_dim), in [-1, 1]
        :param context: in [-1, 1]
        :return: (...), reward; 0 where the law is as dense as the uniform one
        """
        return self.temperature * (np.log(self.density(actions, context)) + self.action_dim * math.log(2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: of the contexts
        :param options: ``{"context": c}`` takes this one
        :return: observation and info
        :raises ValueError: if an option is unknown or cannot be used
        """
        super().reset(seed=seed)
        options = checked_options(options, ("context",))
        if seed is not None or self.context_rng is None:
            # A stream of its own: SB3 seeds the action space with the environment's seed, and from one stream the warm-up
            # actions would equal the contexts
            (self.context_rng,) = self.np_random.spawn(1)
        if "context" in options:
            self.context = float(np.clip(checked_vector("context", [options["context"]], 1)[0], -1.0, 1.0))
        else:
            self.context = self.context_rng.uniform(-1.0, 1.0)
        self.last_action = None
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: (action_dim,), in [-1, 1]
        :return: observation, reward, terminated (always), truncated, info
        """
        self.last_action = np.clip(checked_vector("action", action, self.action_dim), -1.0, 1.0)
        # the observation holds the context in float32, and the reward is that of the observation
        reward = self.reward(self.last_action, float(self._observation()[0]))
        return self._observation(), float(reward), True, False, {}

    def render(self) -> np.ndarray | None:
        """
        :return: (280, 280, 3) image of the law over the action box (blue: a curve in 1-D, the darker the denser in 2-D) with
            the last action (red); None without render mode
        """
        if self.render_mode != "rgb_array":
            return None
        pixels = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE * 2 - 1
        across, up = np.meshgrid(pixels, -pixels)
        image = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 255, dtype=np.uint8)
        if self.action_dim == 1:
            density = self.density(pixels[:, None], self.context)
            image[(up + 1) / 2 < 0.9 * density / density.max()] = LAW_COLOUR
        else:
            density = self.density(np.stack([across, up], axis=-1), self.context)
            shade = (density / density.max())[..., None]
            image = (shade * LAW_COLOUR + (1 - shade) * 255).astype(np.uint8)
        if self.last_action is not None:
            distance = np.abs(across - self.last_action[0])
            if self.action_dim == 2:
                distance = np.hypot(distance, up - self.last_action[1])
            image[distance < 0.03] = POSITION_COLOUR
        return image

    def _observation(self) -> np.ndarray:
        return np.array([self.context], dtype=np.float32)


def _normal_cdf(values: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: 0.5 * (1 + math.erf(value / math.sqrt(2))))(values)
