"""What does a plane to navigate look like? Its size, goals and walls, and a picture of them with a trace."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sb3_dqs.checks import InputError, check_choice

IMAGE_SIZE = 280
GOAL_COLOUR = (120, 200, 120)
WALL_COLOUR = (120, 120, 120)
TRACE_COLOUR = (150, 150, 150)
POSITION_COLOUR = (220, 60, 60)


@dataclass(frozen=True)
class Arena:
    """
    :param half_width: the arena is the square [-half_width, half_width]^2, in units of position
    :param goals: (n_goals, 2), centres of the goals
    :param goal_radius: distance within which a goal counts as reached
    :param walls: (n_walls, 2), centres of square blocks of side 1
    """

    half_width: float
    goals: np.ndarray
    goal_radius: float
    walls: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def picture(self, trace: Sequence[np.ndarray], size: int = IMAGE_SIZE) -> np.ndarray:
        """
        :param trace: positions so far, the last one is where the point is now
        :param size: pixels per side
        :return: (size, size, 3), uint8: goals green, walls and trace grey, position red
        """
        pixels = (np.arange(size) + 0.5) / size * 2 * self.half_width - self.half_width
        image = np.full((size, size, 3), 255, dtype=np.uint8)
        for wall in self.walls:
            across, up = np.abs(pixels - wall[0]), np.abs(-pixels - wall[1])
            image[np.ix_(up <= 0.5, across <= 0.5)] = WALL_COLOUR
        # dots keep their size in pixels, whatever the arena's scale
        dot = self.half_width / 7
        discs = [(goal, self.goal_radius, GOAL_COLOUR) for goal in self.goals]
        discs += [(point, 0.12 * dot, TRACE_COLOUR) for point in trace]
        discs += [(point, 0.25 * dot, POSITION_COLOUR) for point in trace[-1:]]
        for centre, radius, colour in discs:
            across, up = pixels - centre[0], -pixels - centre[1]
            # of its bounding box alone: a trace has hundreds of points
            columns, rows = np.abs(across) < radius, np.abs(up) < radius
            inside = np.hypot(across[columns], up[rows][:, None]) < radius
            image[np.ix_(rows, columns)] = np.where(inside[..., None], colour, image[np.ix_(rows, columns)])
        return image


def checked_options(options: dict[str, Any] | None, known: Sequence[str]) -> dict[str, Any]:
    """
    :param options: of ``reset()``
    :param known: names of those that the environment has
    :return: the options, none for None
    :raises ValueError: if one is unknown
    """
    for name in options or {}:
        check_choice("each option of reset()", name, known)
    return options or {}


def checked_vector(name: str, value: Any, size: int) -> np.ndarray:
    """
    :param name: of what an environment was given
    :param value: value found
    :param size: of the vector
    :return: (size,), float64
    :raises ValueError: if it is no vector of this size, or not finite: observations and rewards would not be either
    """
    vector = np.asarray(value, dtype=np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise InputError(f"{name} must be {size} finite numbers, got {value!r}; look for NaN in what chose it")
    return vector
