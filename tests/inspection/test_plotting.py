"""Do the pictures show what they say?"""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from PIL import Image
from stable_baselines3 import SAC

from sb3_dqs import DQS, DiffusionPolicy, PaperDQS
from sb3_dqs.envs import BanditEnv, MultiGoalEnv
from sb3_dqs.inspection.plotting import (
    animate_roll_outs,
    compare_roll_outs,
    denoising_paths,
    plot_critic,
    plot_denoising_paths,
    plot_roll_outs,
    plot_training_course,
)
from tests.conftest import SMALL, RandomEnv
from tests.inspection.models import with_linear_critics


def test_critic_picture_in_one_dimension_shows_q_law_and_samples():
    model = with_linear_critics(DQS("MlpPolicy", BanditEnv(), temperature=2.0, **SMALL), [3.0])
    figure = plot_critic(model, np.zeros(1, np.float32), n_samples=200)
    landscape, law = figure.axes
    actions, q_values = landscape.lines[0].get_data()
    assert np.asarray(q_values) == pytest.approx(3.0 * np.asarray(actions), abs=1e-5)
    # exp(1.5 a) on [-1, 1]: density 1.5 e^1.5 / (e^1.5 - e^-1.5) at the upper wall, over a bin 0.04 wide
    exact, sampled = (patch.get_data().values for patch in law.patches)
    top = (np.exp(1.5) - np.exp(1.5 * 0.96)) / (np.exp(1.5) - np.exp(-1.5)) / 0.04
    assert exact[-1] == pytest.approx(top, rel=1e-3)
    assert sampled.sum() * 0.04 == pytest.approx(1.0)
    assert "temperature 2" in law.get_title()
    assert all(axes.get_ylabel() for axes in figure.axes)


def test_critic_picture_in_two_dimensions_and_on_slices():
    model = with_linear_critics(DQS("MlpPolicy", MultiGoalEnv(), temperature=1.0, **SMALL), [1.0, 4.0])
    observation = np.zeros(2, np.float32)
    critic, law, samples = plot_critic(model, observation, n_samples=150).axes[:3]
    # rows are the second coordinate, along which Q rises by 8
    image = critic.images[0].get_array()
    assert image[-1, 0] - image[0, 0] == pytest.approx(8 * (1 - 1 / 40), rel=1e-4)
    assert law.images[0].get_array().sum() / 20**2 == pytest.approx(1.0)
    assert len(samples.lines[0].get_xdata()) == 150
    assert re.search(r"total variation 0\.\d\d \(exact draws 0\.\d\d\)", samples.get_title())

    landscape, law = plot_critic(model, observation, dimensions=[1], base_action=np.array([0.5, 0.0])).axes
    actions, q_values = (np.asarray(values) for values in landscape.lines[0].get_data())
    assert q_values == pytest.approx(0.5 + 4 * actions, abs=1e-5)
    assert "on the slice" in law.get_title()
    assert len(law.patches) == 1
    for dimensions in ([0, 0], [2], [0, 1, 1], []):
        with pytest.raises(ValueError, match="from 0 to 1"):
            plot_critic(model, observation, dimensions=dimensions)


def test_critic_picture_of_actions_with_two_axes():
    env = RandomEnv(spaces.Box(-1.0, 1.0, (2,)))
    env.action_space = spaces.Box(-1.0, 1.0, (2, 1))
    model = with_linear_critics(DQS("MlpPolicy", env, temperature=1.0, **SMALL), [1.0, 4.0])
    observation = np.zeros(2, np.float32)
    image = plot_critic(model, observation).axes[0].images[0].get_array()
    assert image[-1, 0] - image[0, 0] == pytest.approx(8 * (1 - 1 / 40), rel=1e-4)
    # a slice through the predicted action, which has both axes
    landscape = plot_critic(model, observation, dimensions=[1]).axes[0]
    assert np.ptp(landscape.lines[0].get_ydata()) == pytest.approx(4 * np.ptp(landscape.lines[0].get_xdata()), rel=1e-4)


def test_the_picture_follows_a_temperature_that_was_just_set():
    model = with_linear_critics(DQS("MlpPolicy", BanditEnv(), temperature=2.0, **SMALL), [3.0])
    model.temperature = 1.0
    _, law = plot_critic(model, np.zeros(1, np.float32), n_samples=20).axes
    top = (np.exp(3) - np.exp(3 * 0.96)) / (np.exp(3) - np.exp(-3)) / 0.04
    assert law.patches[0].get_data().values[-1] == pytest.approx(top, rel=1e-3)
    assert "temperature 1" in law.get_title()


class AlwaysRight(DiffusionPolicy):
    """Always the same action, whatever the actor would do."""

    def forward(self, obs, deterministic=False):
        return th.full((len(obs), 1), 0.5)


def test_the_picture_shows_what_the_policy_does_and_not_its_actor():
    _, law = plot_critic(DQS(AlwaysRight, BanditEnv(), **SMALL), np.zeros(1, np.float32), n_samples=20).axes
    sampled = law.patches[1].get_data().values
    # all in the bin from 0.48 to 0.52
    assert np.flatnonzero(sampled).tolist() == [37]
    assert sampled[37] == pytest.approx(1 / 0.04)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [(DQS, {"n_diffusion_steps": 4, "n_corrector_proposals": 0}), (PaperDQS, {"n_diffusion_steps": 6, "n_score_samples": 4})],
)
def test_denoising_paths_lead_from_noise_to_the_actions_of_the_diffusion(algorithm, settings):
    model = algorithm("MlpPolicy", MultiGoalEnv(), seed=0, **SMALL, **settings)
    with th.no_grad():  # of an untrained model actor and average are the same
        for parameter in model.policy.deployed_actor.parameters():
            parameter += 0.1
    model.policy.deployed_actor.refiner = None
    observation = np.array([1.0, 2.0], np.float32)
    th.manual_seed(7)
    paths = denoising_paths(model, observation, n_paths=5)
    assert paths.shape == (settings["n_diffusion_steps"] + 1, 5, 2)
    # noise at its largest scale, 1.5 or 1, by the same draws
    th.manual_seed(7)
    noise_scale = 1.5 if algorithm is DQS else 1.0
    assert paths[0] == pytest.approx(noise_scale * th.randn(5, 2).numpy(), rel=1e-5)
    th.manual_seed(7)
    actions, _ = model.predict(np.repeat(observation[None], 5, axis=0))
    assert paths[-1] == pytest.approx(actions, abs=1e-6)
    (axes,) = plot_denoising_paths(model, observation, n_paths=5).axes
    assert len(axes.lines) == 5 + 2
    (axes,) = plot_denoising_paths(model, observation, n_paths=5, dimensions=[1]).axes
    assert axes.get_xlabel() == "network passes done"


def test_pictures_of_dictionary_observations():
    env = RandomEnv(spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}), action_dim=3)
    model = DQS("MultiInputPolicy", env, **SMALL)
    observation = {"a": np.zeros(2, np.float32), "b": 1}
    # three dimensions: a slice, without samples
    figure = plot_critic(model, observation)
    assert len([axes for axes in figure.axes if axes.images]) == 2
    assert len([axes for axes in figure.axes if axes.get_title()]) == 2
    assert denoising_paths(model, observation, 3).shape == (6, 3, 3)


def test_roll_outs_start_and_end_where_they_did():
    traces = [np.array([[0.0, 0.0], [1.0, 0.5], [4.5, 0.0]])]
    (axes,) = plot_roll_outs(MultiGoalEnv().arena, traces, "Test", units="m").axes
    assert [list(map(float, np.ravel(line.get_xdata()))) for line in axes.lines] == [[0.0, 1.0, 4.5], [0.0], [4.5]]
    assert len(axes.patches) == 4
    assert axes.get_xlabel() == "x (m)"
    assert axes.get_title() == "Test: 1 episodes"


def test_roll_outs_stand_side_by_side_row_by_row():
    arena, one_goal = MultiGoalEnv().arena, dataclasses.replace(MultiGoalEnv().arena, goals=np.array([[1.0, 1.0]]))
    traces = [np.array([[0.0, 0.0], [1.0, 0.5]]), np.array([[2.0, 0.0]])]
    panels = {"one": (arena, traces), "two": (one_goal, traces[:1]), "three": (arena, [])}
    figure = compare_roll_outs(panels, n_columns=2)
    one, two, three, left_over = figure.axes
    assert [axes.get_title() for axes in (one, two, three)] == ["one", "two", "three"]
    assert (one.get_subplotspec().rowspan, three.get_subplotspec().rowspan) == (range(0, 1), range(1, 2))
    assert ([len(a.patches) for a in (one, two)], [len(a.lines) for a in (one, two, three)]) == ([4, 1], [6, 3, 0])
    assert three.axison
    assert not left_over.axison
    assert len(compare_roll_outs({"one": (arena, traces)}, n_columns=3).axes) == 1


def test_a_film_shows_each_step_of_all_episodes_and_stays_at_their_ends(tmp_path):
    traces = [np.array([[0.0, 0.0], [1.0, 0.5], [4.5, 0.0]]), np.array([[0.5, 0.0], [0.5, -4.5]])]
    animation = animate_roll_outs(MultiGoalEnv().arena, traces, n_last_frames=2)
    animation.save(tmp_path / "film.gif", writer="pillow", fps=8)
    with Image.open(tmp_path / "film.gif") as film:
        # three steps; the frames that stay are kept as one that lasts, at an eighth of a second each
        durations = [film.seek(frame) or film.info["duration"] for frame in range(film.n_frames)]
    assert sum(durations) == pytest.approx(5 * 125, abs=25)
    *ways, points = animation._func(1)
    assert [way.get_xdata().tolist() for way in ways] == [[0.0, 1.0], [0.5, 0.5]]
    *_, points = animation._func(4)
    assert np.transpose(points.get_data()).tolist() == [[4.5, 0.0], [0.5, -4.5]]


def test_training_course_shows_what_was_logged():
    course = {"steps": [1, 2, 3], "train/temperature": [2.0, 4.0, 3.0], "train/effective_sample_size": [np.nan, 5.0, 7.0]}
    temperature, entropy, sample_size = plot_training_course(course).axes
    assert temperature.get_yscale() == "log"
    # the temperature is known exactly, and not smoothed
    assert [list(line.get_ydata()) for line in temperature.lines] == [[2.0, 4.0, 3.0]]
    assert not entropy.lines
    assert list(sample_size.lines[0].get_ydata())[1:] == pytest.approx([5.0, 6.0])
    # what is logged as a running mean is shown as it is
    course = {"steps": [1, 2], "train/entropy": [0.5, 0.1], "train/q_spread": [1.0, 3.0]}
    lines = [line for axes in plot_training_course(course).axes for line in axes.lines]
    assert [list(line.get_ydata()) for line in lines] == [[1.0, 3.0], [0.5, 0.1]]


NAN = np.array([np.nan], np.float32)


@pytest.mark.parametrize(
    ("draw", "named"),
    [
        (lambda model: plot_critic(model, NAN), "not finite"),
        (
            lambda model: plot_critic(model, np.zeros(1, np.float32), base_action=np.zeros(2)),
            "base_action must be an action of 1",
        ),
        (lambda model: plot_critic(model, np.zeros(1, np.float32), base_action=NAN), r"base_action .* got array\(\[nan\]"),
        (lambda model: plot_critic(model, np.zeros(1, np.float32), base_action=[2.0]), r"in \[-1, 1\], got \[2.0\]"),
        (
            lambda model: plot_critic(model, np.zeros(2, np.float32)),
            r"observation must be one of Box.* got array\(\[0\., 0\.\]",
        ),
        (lambda model: plot_denoising_paths(model, np.zeros(7)), "observation must be one of Box"),
        (lambda model: plot_critic(SAC("MlpPolicy", model.env), np.zeros(1)), "model must be a DQS or PaperDQS, got SAC"),
        (lambda model: plot_critic(model, np.zeros(1), dimensions=np.int64(1)), r"dimensions must be one .* got \(1,\)"),
        (lambda model: plot_critic(model, np.zeros(1, np.float32), n_samples=0), "n_samples"),
        (lambda model: plot_denoising_paths(model, NAN), "not finite; look for NaN"),
        (lambda model: denoising_paths(model, np.zeros(1, np.float32), 0), "n_paths must be an integer >= 1"),
        (lambda model: plot_roll_outs(MultiGoalEnv().arena, [np.zeros((3, 1))]), r"traces\[0\] .* got shape \(3, 1\)"),
        (lambda model: plot_roll_outs(MultiGoalEnv().arena, [np.zeros((3, 2)), np.full((1, 2), np.inf)]), r"traces\[1\]"),
        (lambda model: compare_roll_outs({}, 2), "panels must hold at least one"),
        (
            lambda model: compare_roll_outs({"a": (MultiGoalEnv().arena, [np.zeros(3)])}, 0),
            "n_columns must be an integer >= 1",
        ),
        (lambda model: compare_roll_outs({"a": (MultiGoalEnv().arena, [np.zeros(3)])}, 2), r"traces\[0\]"),
        (lambda model: animate_roll_outs(MultiGoalEnv().arena, [np.zeros((0, 2))]), r"traces\[0\] .* got shape \(0, 2\)"),
        (lambda model: animate_roll_outs(MultiGoalEnv().arena, []), "traces must hold at least one episode"),
        (lambda model: plot_critic(model, np.zeros(1, np.float32), dimensions=1), r"numbers from 0 to 0, got \(1,\)"),
        (lambda model: plot_training_course({}), "course must hold 'steps'"),
        (lambda model: plot_training_course({"steps": [1], "train/entropy": []}), "'train/entropy'.* must have 1 values"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, named):
    model = DQS("MlpPolicy", BanditEnv(), **SMALL)
    with pytest.raises(ValueError, match=named):
        draw(model)


def test_without_matplotlib_the_package_works_and_pictures_say_what_to_install():
    program = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        "import sb3_dqs.inspection.plotting\n"
        "try:\n    sb3_dqs.inspection.plotting.plot_training_course({'steps': []})\n"
        "except ImportError as error:\n    assert 'sb3-dqs[plots]' in str(error), error\n"
        "else:\n    raise SystemExit('drawn without matplotlib')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
