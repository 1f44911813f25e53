"""What does the policy look like? Pictures of the critic with its Boltzmann law, of sampling, of roll-outs and of training."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th

from sb3_dqs.checks import InputError, as_integer
from sb3_dqs.diffusion.estimators import QFunction
from sb3_dqs.dqs import DQS
from sb3_dqs.envs.arena import Arena
from sb3_dqs.extras import install_command
from sb3_dqs.inspection.evaluation import N_BINS, check_observation, q_values_at, repeated, sample_actions
from sb3_dqs.inspection.metrics import (
    ROUNDING,
    boltzmann_masses,
    cell_midpoints,
    total_variation,
    total_variation_of_exact_draws,
)

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn by default, and shown at most: more dots hide each other
N_SAMPLES = 2_000
N_PATHS = 60
# Cells per dimension of the pictures of a plane
N_CELLS = 40
RUNNING_MEAN_POINTS = 20
LAW_COLOUR, POLICY_COLOUR, Q_COLOUR = "tab:blue", "tab:red", "tab:green"

# Logged keys whose course is shown: panel -> keys, with the panel's axis label
COURSE = {
    "temperature": (("train/temperature", "train/q_spread"), "units of Q"),
    "entropy": (("train/entropy", "train/policy_entropy", "train/target_entropy"), "nats per action dimension"),
    "effective sample size": (("train/effective_sample_size",), "proposals"),
}

# Logged as the mean of a single round of updates, and so noisy; the others are set, or running means already
NOISY = ("train/effective_sample_size",)


def plot_critic(
    model: DQS,
    observation: np.ndarray | dict[str, np.ndarray],
    dimensions: Sequence[int] | None = None,
    base_action: np.ndarray | None = None,
    n_samples: int = N_SAMPLES,
) -> "Figure":
    """
    The critic's landscape over the action box at one observation, its exact Boltzmann law, and samples of the policy.

    With one dimension: Q above, law and histogram of the samples below. With two: Q, the law with contours, the samples with
    the law's contours. Of an action with more dimensions, a slice through ``base_action`` is shown: there the law is the one
    on the slice, and samples, which do not lie on the slice, are left out. The title tells the total variation between
    samples and law, in 50 bins (1-D) or 20 x 20 (2-D), and what as many exact draws would have.

    :param model: trained or not
    :param observation: one, not batched, as the policy sees it (after ``VecNormalize``, if any)
    :param dimensions: one or two action coordinates; the first two (or the only one) by default
    :param base_action: (action_dim,), in [-1, 1]: the other coordinates; the deterministic action by default
    :param n_samples: actions drawn from the policy
    :return: the figure; save it with ``figure.savefig(path)``
    :raises ValueError: if the model is no DQS or the observation none of its, ``dimensions`` are not one or two different
        coordinates of the action, ``base_action`` is no action, or values of the critic or actions of the policy are not
        finite
    """
    check_drawable(model, observation)
    dimensions = checked_dimensions(dimensions, model.action_dim)
    is_whole_box = len(dimensions) == model.action_dim
    samples = sample_actions(model, observation, n_samples)[:, dimensions] if is_whole_box else None
    if base_action is None:
        predicted, _ = model.predict(observation, deterministic=True)  # type: ignore[arg-type]
        base_action = model.policy.scale_action(predicted)
    base = _checked_action(base_action, model.action_dim)
    draw = _plot_critic_1d if len(dimensions) == 1 else _plot_critic_2d
    with q_values_at(model, observation) as q_fn:
        return draw(_on_slice(q_fn, base, dimensions), model.thermostat.value.item(), dimensions, samples)


def plot_denoising_paths(
    model: DQS,
    observation: np.ndarray | dict[str, np.ndarray],
    n_paths: int = N_PATHS,
    dimensions: Sequence[int] | None = None,
) -> "Figure":
    """
    How noise becomes samples of the diffusion: what each network pass is given, from the start noise to what the refiner gets.

    With one dimension, the noisy action over the passes; with two, paths in the plane. The box is drawn around the actions.

    :param model: trained or not
    :param observation: one, not batched, as the policy sees it (after ``VecNormalize``, if any)
    :param n_paths: number of sampled actions
    :param dimensions: one or two action coordinates; the first two (or the only one) by default
    :return: the figure
    :raises ValueError: as :func:`plot_critic`
    """
    check_drawable(model, observation)
    dimensions = checked_dimensions(dimensions, model.action_dim)
    paths = denoising_paths(model, observation, n_paths)
    figure = _figure(1, 1, (6.0, 5.0))
    (axes,) = figure.axes
    chosen = paths[..., list(dimensions)]
    if len(dimensions) == 1:
        passes = np.arange(len(paths))
        axes.plot(passes, chosen[..., 0], color="0.5", linewidth=0.7, alpha=0.6)
        axes.plot(np.full(chosen.shape[1], passes[-1]), chosen[-1, :, 0], ".", color=POLICY_COLOUR, label="sample")
        axes.axhspan(-1, 1, color=LAW_COLOUR, alpha=0.12, label="action box")
        axes.set(xlabel="network passes done", ylabel=_action_label(dimensions[0]))
    else:
        axes.plot(chosen[..., 0], chosen[..., 1], color="0.5", linewidth=0.7, alpha=0.6)
        axes.plot(*chosen[0].T, ".", color="0.3", markersize=4, label="start noise")
        axes.plot(*chosen[-1].T, ".", color=POLICY_COLOUR, label="sample")
        axes.fill([-1, 1, 1, -1], [-1, -1, 1, 1], color=LAW_COLOUR, alpha=0.12, label="action box")
        axes.set(xlabel=_action_label(dimensions[0]), ylabel=_action_label(dimensions[1]), aspect="equal")
    axes.set_title(f"From noise to a sample of the diffusion in {len(paths) - 1} network passes")
    axes.legend(loc="upper right", fontsize="small")
    return figure


def denoising_paths(model: DQS, observation: np.ndarray | dict[str, np.ndarray], n_paths: int) -> np.ndarray:
    """
    The diffusion's own sampling, by torch's global generator, before refiner, corrector and whatever else there is.

    :param model: trained or not
    :param observation: one, not batched, as the policy sees it (after ``VecNormalize``, if any)
    :param n_paths: number of sampled actions
    :return: (n_passes + 1, n_paths, action_dim): the noisy actions that each network pass was given, then the actions
    :raises ValueError: if one is not finite
    """
    n_paths = as_integer("n_paths", n_paths, 1, "60 is the default")
    actor = model.policy.deployed_actor
    # a policy that was made by hand is in training mode, which batch norm and dropout show
    actor.set_training_mode(False)
    observations, _ = actor.obs_to_tensor(repeated(observation, n_paths))
    passes: list[th.Tensor] = []
    with th.no_grad():
        features = actor.conditions(observations)
        start_noise = th.randn(n_paths, actor.action_dim, device=features.device)
        actions = actor.sample_actions(features, start_noise, callback=passes.append)
    paths = th.stack([*passes, actions]).cpu().numpy()
    if not np.isfinite(paths).all():
        raise InputError(
            f"sampling at observation {observation} is not finite; look for NaN, infinite or enormous values in it, and for "
            "NaN in the parameters of the policy"
        )
    return paths


def plot_roll_outs(arena: Arena, traces: Sequence[np.ndarray], title: str = "Roll-outs", units: str = "") -> "Figure":
    """
    Traces of episodes in an arena, from the start (black dot) to the end (red dot).

    :param arena: of the environment: ``env.unwrapped.arena``
    :param traces: one per episode, (length, >= 2): the position is in the first two columns
    :param title: of the picture
    :param units: of position
    :return: the figure
    :raises ValueError: if a trace has no position, or one that is not finite
    """
    _check_traces(traces)
    figure = _figure(1, 1, (6.0, 6.0))
    (axes,) = figure.axes
    _draw_arena(axes, arena, f"{title}: {len(traces)} episodes", units)
    _draw_traces(axes, traces)
    return figure


def compare_roll_outs(panels: Mapping[str, tuple[Arena, Sequence[np.ndarray]]], n_columns: int, size: float = 3.5) -> "Figure":
    """
    Roll-outs side by side, as :func:`plot_roll_outs` draws them: of several policies, or of one in several worlds.

    :param panels: title -> (arena, traces), row by row
    :param n_columns: panels per row
    :param size: of a panel, inches
    :return: the figure
    :raises ValueError: if there is no panel, or a trace has no position, or one that is not finite
    """
    if not panels:
        raise InputError("panels must hold at least one arena with its traces, got none")
    n_columns = min(as_integer("n_columns", n_columns, 1, "it is the number of panels per row"), len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    figure = _figure(n_rows, n_columns, (size * n_columns, size * n_rows))
    for axes, (title, (arena, traces)) in zip(figure.axes, panels.items(), strict=False):
        _check_traces(traces)
        _draw_arena(axes, arena, title)
        axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
        _draw_traces(axes, traces)
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    return figure


def animate_roll_outs(
    arena: Arena, traces: Sequence[np.ndarray], title: str = "Roll-outs", units: str = "", n_last_frames: int = 5
) -> "FuncAnimation":
    """
    The same as a film: all episodes at once, a frame per step, with the way that each has come.

    :param arena: of the environment: ``env.unwrapped.arena``
    :param traces: one per episode, (length, >= 2): the position is in the first two columns
    :param title: of the film
    :param units: of position
    :param n_last_frames: for which the last positions stay
    :return: the animation; ``animation.save("roll_outs.gif", writer="pillow", fps=8)`` writes it
    :raises ValueError: if there is no trace, or one has no position, or one that is not finite
    """
    from matplotlib.animation import FuncAnimation

    _check_traces(traces)
    if not traces:
        raise InputError("traces must hold at least one episode to animate, got none")
    figure = _figure(1, 1, (6.0, 6.0))
    (axes,) = figure.axes
    _draw_arena(axes, arena, f"{title}: {len(traces)} episodes", units)
    ways = [axes.plot([], [], color=LAW_COLOUR, linewidth=0.8, alpha=0.5)[0] for _ in traces]
    (points,) = axes.plot([], [], ".", color=POLICY_COLOUR, markersize=8, linestyle="none")

    def draw(step: int) -> list[Any]:
        for way, trace in zip(ways, traces, strict=True):
            way.set_data(*trace[: step + 1, :2].T)
        points.set_data(*np.array([trace[min(step, len(trace) - 1), :2] for trace in traces]).T)
        return [*ways, points]

    return FuncAnimation(figure, draw, frames=max(map(len, traces)) + n_last_frames, blit=True)


def _check_traces(traces: Sequence[np.ndarray]) -> None:
    for number, trace in enumerate(traces):
        if np.ndim(trace) != 2 or len(trace) == 0 or np.shape(trace)[1] < 2 or not np.isfinite(trace).all():
            raise InputError(
                f"traces[{number}] must hold at least one finite position, (length, >= 2), got shape {np.shape(trace)}; the "
                "observations of an episode of roll_out() have it where the position comes first"
            )


def _draw_arena(axes: "Axes", arena: Arena, title: str, units: str = "") -> None:
    """Walls and goals."""
    from matplotlib.patches import Circle, Rectangle

    for wall in arena.walls:
        axes.add_patch(Rectangle(tuple(wall - 0.5), 1, 1, color="0.6", linewidth=0))
    for goal in arena.goals:
        axes.add_patch(Circle(tuple(goal), arena.goal_radius, color="tab:green", alpha=0.35, linewidth=0))
    label = f" ({units})" if units else ""
    limits = (-arena.half_width, arena.half_width)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"x{label}", ylabel=f"y{label}")
    axes.set_title(title)


def _draw_traces(axes: "Axes", traces: Sequence[np.ndarray]) -> None:
    for trace in traces:
        axes.plot(trace[:, 0], trace[:, 1], color=LAW_COLOUR, linewidth=0.8, alpha=0.5)
        axes.plot(*trace[0, :2], ".", color="black", markersize=5)
        axes.plot(*trace[-1, :2], ".", color=POLICY_COLOUR, markersize=5)


def plot_training_course(course: Mapping[str, Sequence[float]]) -> "Figure":
    """
    Temperature, entropy and effective sample size over training; what is noisy thin, with a thick running mean.

    :param course: ``"steps"`` and the keys that DQS logs, such as ``"train/temperature"``, each with as many values; NaN where
        a value is missing, and keys that are not there are left out
    :return: the figure, one panel each
    :raises ValueError: if there are no steps, or a key has another number of values
    """
    steps = course.get("steps")
    if steps is None:
        raise InputError(f"course must hold 'steps', got the keys {sorted(course)}; they are the axis of all panels")
    for key, values in course.items():
        if len(values) != len(steps):
            raise InputError(f"course[{key!r}] must have {len(steps)} values, as 'steps', got {len(values)}; fill up with NaN")
    figure = _figure(len(COURSE), 1, (7.0, 7.5), sharex=True)
    for axes, (panel, (keys, label)) in zip(figure.axes, COURSE.items(), strict=True):
        for key in keys:
            if key in course:
                name = key.removeprefix("train/").replace("_", " ")
                dashes = "--" if "target" in key else "-"
                thick = _running_mean(course[key]) if key in NOISY else course[key]
                (line,) = axes.plot(steps, thick, dashes, label=name, linewidth=1.8)
                if key in NOISY:
                    axes.plot(steps, course[key], color=line.get_color(), linewidth=0.6, alpha=0.35)
        axes.set(ylabel=label, title=panel)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    # the temperature falls over orders of magnitude
    if figure.axes[0].lines:
        figure.axes[0].set_yscale("log")
    figure.axes[-1].set_xlabel("environment steps")
    return figure


def check_drawable(model: Any, observation: Any) -> None:
    """
    :param model: of which something is to be drawn at the observation
    :param observation: one, not batched, as the policy sees it
    :raises ValueError: if the model is no DQS, or the observation none of its
    """
    if not isinstance(model, DQS):
        raise InputError(f"model must be a DQS or PaperDQS, got {type(model).__name__}; distances_to_critic takes SAC, too")
    check_observation(model, observation)


def checked_dimensions(dimensions: Sequence[int] | int | None, action_dim: int) -> tuple[int, ...]:
    """
    :param dimensions: one or two coordinates of the action; None for the first two (or the only one)
    :param action_dim: size of the action
    :return: the coordinates
    :raises ValueError: if they are not one or two different ones
    """
    if isinstance(dimensions, int | np.integer):
        dimensions = (int(dimensions),)
    chosen = tuple(range(min(2, action_dim)) if dimensions is None else dimensions)
    if len(chosen) not in (1, 2) or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(action_dim)):
        raise InputError(f"dimensions must be one or two different numbers from 0 to {action_dim - 1}, got {chosen!r}")
    return chosen


def _plot_critic_1d(q_fn: QFunction, temperature: float, dimensions: Sequence[int], samples: th.Tensor | None) -> "Figure":
    n_bins = N_BINS[1]
    masses = boltzmann_masses(q_fn, temperature, 1, n_bins)
    edges = np.linspace(-1, 1, n_bins + 1)
    grid = th.linspace(-1, 1, 401)
    q_values = q_fn(grid[:, None, None]).squeeze(1)
    figure = _figure(2, 1, (6.0, 6.0), sharex=True)
    landscape, law = figure.axes
    landscape.plot(grid, q_values, color=Q_COLOUR)
    landscape.set(ylabel="Q (smallest of the ensemble)", title="Critic")
    law.stairs(masses.numpy() * n_bins / 2, edges, color=LAW_COLOUR, linewidth=1.8, label="exact Boltzmann law")
    if samples is not None:
        histogram, _ = np.histogram(samples.numpy(), bins=edges, density=True)
        law.stairs(histogram, edges, color=POLICY_COLOUR, fill=True, alpha=0.35, label=f"{len(samples)} samples of the policy")
    where = "Boltzmann law on the slice" if samples is None else "Boltzmann law"
    distance = "" if samples is None else f"; {_distance(masses, samples)}"
    law.set(title=f"{where}, temperature {temperature:.3g}{distance}")
    law.set(xlabel=_action_label(dimensions[0]), ylabel="density, per action unit")
    law.legend(fontsize="small")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    return figure


def _plot_critic_2d(q_fn: QFunction, temperature: float, dimensions: Sequence[int], samples: th.Tensor | None) -> "Figure":
    midpoints = cell_midpoints([N_CELLS]).flatten()
    q_values = q_fn(cell_midpoints([N_CELLS, N_CELLS]).unsqueeze(1)).reshape(N_CELLS, N_CELLS)
    density = (boltzmann_masses(q_fn, temperature, 2, N_CELLS) * (N_CELLS / 2) ** 2).numpy()
    n_panels = 2 if samples is None else 3
    figure = _figure(1, n_panels, (4.6 * n_panels, 4.3))
    panels = list(figure.axes)
    law_title = f"Exact Boltzmann law{' on the slice' if samples is None else ''}, temperature {temperature:.3g}"
    images = [
        ("Critic", q_values.numpy(), "Q (smallest of the ensemble)", "viridis"),
        (law_title, density, "density, per unit of action volume", "Blues"),
    ]
    for axes, (title, values, label, colours) in zip(panels, images, strict=False):
        # rows of an image are the second coordinate
        image = axes.imshow(values.T, origin="lower", extent=(-1, 1, -1, 1), cmap=colours, interpolation="nearest")
        figure.colorbar(image, ax=axes, label=label, shrink=0.85)
        axes.set_title(title)
    if samples is not None:
        panels[2].plot(*samples[:N_SAMPLES].T.numpy(), ".", color=POLICY_COLOUR, markersize=2, alpha=0.4)
        levels = np.linspace(0, density.max(), 6)[1:-1]
        panels[2].contour(midpoints, midpoints, density.T, levels=levels, colors="black", linewidths=0.6)
        distance = _distance(boltzmann_masses(q_fn, temperature, 2, N_BINS[2]), samples)
        panels[2].set_title(f"Samples, contours of the law\n{distance}")
    for axes in panels:
        axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
        axes.set(xlabel=_action_label(dimensions[0]), ylabel=_action_label(dimensions[1]))
    return figure


def _distance(masses: th.Tensor, samples: th.Tensor) -> str:
    floor = total_variation_of_exact_draws(masses, len(samples))
    return f"total variation {total_variation(samples, masses):.2f} (exact draws {floor:.2f})"


def _checked_action(action: np.ndarray, action_dim: int) -> th.Tensor:
    scaled = th.as_tensor(action, dtype=th.float32).flatten()
    # NaN is no number up to 1
    if len(scaled) != action_dim or not (scaled.abs() <= 1 + ROUNDING).all():
        raise InputError(
            f"base_action must be an action of {action_dim} numbers in [-1, 1], got {action!r}; scale it by "
            "model.policy.scale_action"
        )
    return scaled


def _on_slice(q_fn: QFunction, base_action: th.Tensor, dimensions: Sequence[int]) -> QFunction:
    """Q as a function of the chosen coordinates (n, 1, 1 or 2) alone; (n, 1)."""

    def on_slice(coordinates: th.Tensor) -> th.Tensor:
        actions = base_action.expand(len(coordinates), 1, -1).clone()
        actions[..., list(dimensions)] = coordinates
        return q_fn(actions)

    return on_slice


def _figure(n_rows: int, n_columns: int, size: tuple[float, float], sharex: bool = False) -> "Figure":
    """A figure with empty axes, outside of pyplot's list, so that none has to be closed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = install_command("matplotlib")
        raise ImportError(f"sb3_dqs.inspection.plotting needs matplotlib; install it with: {hint}") from error
    figure = Figure(figsize=size, layout="constrained")
    figure.subplots(n_rows, n_columns, sharex=sharex)
    return figure


def _running_mean(values: Sequence[float]) -> np.ndarray:
    """Exponential, over about ``RUNNING_MEAN_POINTS`` points; a missing value repeats the mean so far."""
    means, mean, n_values = [], float("nan"), 0
    for value in values:
        if np.isfinite(value):
            n_values += 1
            mean = value if n_values == 1 else mean + max(1 / RUNNING_MEAN_POINTS, 1 / n_values) * (value - mean)
        means.append(mean)
    return np.array(means)


def _action_label(dimension: int) -> str:
    return f"action coordinate {dimension} (box: -1 to 1)"
