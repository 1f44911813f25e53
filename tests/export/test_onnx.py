"""Does an ONNX file give the actions of ``predict()`` where there is neither torch nor SB3?"""

import json
import runpy
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn.utils import prune

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import InputError
from sb3_dqs.export import DeployedPolicy, compare_with_predict, export_onnx
from tests.conftest import SMALL, RandomEnv
from tests.docs.markdown import REPOSITORY, blocks, page
from tests.export.models import DICT, IMAGE, VECTOR, observations_for, trained

# A program on the robot: as if none of these were installed
WITHOUT_TORCH = """
import sys
missing = {"torch", "stable_baselines3", "gymnasium", "sb3_dqs"}
sys.modules.update(dict.fromkeys(missing))
"""
STILL_WITHOUT_TORCH = """
assert not [name for name, module in sys.modules.items() if module is not None and name.partition(".")[0] in missing]
"""

# Run on its own, with the folder of the files as argument
RUN_FILES = """
import json, pathlib
import numpy as np, onnxruntime
results = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    session = onnxruntime.InferenceSession(path)
    with np.load(path.with_suffix(".npz")) as arrays:
        expected, half_widths = arrays["expected"], arrays["half_widths"]
        feeds = {entry.name: arrays[entry.name] for entry in session.get_inputs()}
    rows = session.get_inputs()[0].shape[0]
    rows = rows if isinstance(rows, int) else len(expected)
    starts = range(0, len(expected), rows)
    batches = [{name: values[start : start + rows] for name, values in feeds.items()} for start in starts]
    actions = np.concatenate([session.run(["actions"], batch)[0] for batch in batches])
    assert actions.shape == expected.shape and actions.dtype == expected.dtype
    results[path.stem] = float((np.abs(actions - expected) / half_widths).max())
print(json.dumps(results))
"""


def run_without_torch(program, *arguments):
    """:return: what a program prints, in a process of its own that has neither torch nor SB3"""
    checked = f"{WITHOUT_TORCH}{program}{STILL_WITHOUT_TORCH}"
    command = [sys.executable, "-I", "-c", checked, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def keep(path, observations, actions, space):
    """With the half-widths of the box: actions are compared in units of [-1, 1]."""
    inputs = observations if isinstance(observations, dict) else {"observations": observations}
    np.savez(path.with_suffix(".npz"), expected=actions, half_widths=(space.high - space.low) / 2, **inputs)


def shapes(path):
    """:return: of inputs and outputs, by name; text where the size is open"""
    graph = onnx.load(path).graph
    sizes = {entry.name: entry.type.tensor_type.shape.dim for entry in (*graph.input, *graph.output)}
    return {name: [size.dim_param or size.dim_value for size in of_axes] for name, of_axes in sizes.items()}


def test_files_give_the_actions_of_predict_where_there_is_no_torch(tmp_path):
    # the published algorithm on images; one candidate, a dictionary, statistics of a part of it, and one row at once;
    # eight candidates, statistics in a file, and any number of rows
    paper = trained(PaperDQS, "CnnPolicy", IMAGE)
    one = trained(DQS, "MultiInputPolicy", DICT, {"norm_obs_keys": ["speed"]}, n_action_candidates=1, n_diffusion_steps=4)
    eight = trained(DQS, "MlpPolicy", VECTOR, {"clip_obs": 7.0})
    cases = {"paper": (paper, IMAGE, 1.0), "one": (one, DICT, 100.0), "eight": (eight, VECTOR, 1.0)}
    at_walls = {}
    for name, (model, space, scale) in cases.items():
        observations, actions = observations_for(model, space, scale)
        keep(tmp_path / f"{name}.onnx", observations, actions, model.action_space)
        at_walls[name] = np.mean((actions == model.action_space.low) | (actions == model.action_space.high))
    assert 0.02 < at_walls["one"] < 0.98
    assert 0.02 < at_walls["eight"] < 0.98

    # and without the environment that tells the layout and the statistics
    eight.get_vec_normalize_env().save(tmp_path / "statistics.pkl")
    eight.save(tmp_path / "eight.zip")
    eight = DQS.load(tmp_path / "eight.zip")
    paper.policy.set_training_mode(True)
    assert export_onnx(paper, tmp_path / "paper.onnx") == tmp_path / "paper.onnx"
    export_onnx(one, tmp_path / "one.onnx", batch_size=1)
    export_onnx(eight, tmp_path / "eight.onnx", tmp_path / "statistics.pkl")

    differences = json.loads(run_without_torch(RUN_FILES, tmp_path))
    assert differences.keys() == cases.keys()
    assert all(difference < 1e-5 for difference in differences.values()), differences
    assert shapes(tmp_path / "one.onnx") == {"image": [1, 36, 40, 3], "speed": [1, 2], "gear": [1], "actions": [1, 1, 2]}
    assert shapes(tmp_path / "eight.onnx") == {"observations": ["batch", 3], "actions": ["batch", 1, 2]}
    assert shapes(tmp_path / "paper.onnx") == {"observations": ["batch", 36, 40, 3], "actions": ["batch", 1, 2]}

    # the comparison that users have
    assert compare_with_predict(one, tmp_path / "one.onnx", n_observations=20).differences.max() < 1e-5
    compared = compare_with_predict(eight, tmp_path / "eight.onnx", tmp_path / "statistics.pkl")
    assert compared.differences.shape == compared.q_differences.shape == (1_000,)
    assert compared.differences.max() < 1e-5
    assert compared.q_differences.max() < 1e-5
    with pytest.raises(ValueError, match="n_observations must be an integer >= 1, got 0"):
        compare_with_predict(eight, tmp_path / "eight.onnx", n_observations=0)
    without_statistics = compare_with_predict(eight, tmp_path / "eight.onnx", vec_normalize=False)
    assert without_statistics.differences.max() > 1e-2
    assert without_statistics.q_differences.max() > 1e-5


class OneActivation(BaseFeaturesExtractor):
    """One module in two places."""

    def __init__(self, observation_space, features_dim=16):
        super().__init__(observation_space, features_dim)
        activation = nn.ReLU()
        self.layers = nn.Sequential(nn.Linear(3, 16), activation, nn.Linear(16, features_dim), activation)

    def forward(self, observations):
        return self.layers(observations)


def with_pruned_denoiser(model):
    """Its first layer has a hook, by which it is no plain one."""
    prune.l1_unstructured(model.policy.deployed_actor.diffusion.denoiser.network[0], "weight", amount=0.2)


@pytest.mark.parametrize(
    ("policy_kwargs", "change"),
    [
        ({"share_features_extractor": True}, None),
        ({"features_extractor_class": OneActivation}, None),
        ({}, with_pruned_denoiser),
    ],
    ids=["shared extractor", "one module in two places", "pruned"],
)
def test_first_layers_that_cannot_be_taken_apart_are_exported(policy_kwargs, change, tmp_path):
    model = trained(DQS, "MlpPolicy", VECTOR, policy_kwargs={**SMALL["policy_kwargs"], **policy_kwargs})
    if change is not None:
        change(model)
    observations, actions = observations_for(model, VECTOR)
    given = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "p.onnx")).run(None, {"observations": observations})[0]
    half_widths = (model.action_space.high - model.action_space.low) / 2
    assert (np.abs(given - actions) / half_widths).max() < 1e-5


def test_statistics_that_a_loaded_model_has_lost_are_missed(tmp_path):
    path = tmp_path / "policy.onnx"
    trained(DQS, "MlpPolicy", VECTOR, {}, n_action_candidates=1, n_diffusion_steps=2).save(tmp_path / "model")
    model = DQS.load(tmp_path / "model")
    with pytest.raises(InputError, match=r"vec_normalize must be given .* --vec-normalize FILE\), or, in Python, False"):
        export_onnx(model, path)
    export_onnx(model, path, vec_normalize=False)
    assert compare_with_predict(model, path, vec_normalize=False, n_observations=20).differences.max() < 1e-5
    # not where nothing, or the reward alone, was normalised
    for normalized in (None, {"norm_obs": False}):
        trained(DQS, "MlpPolicy", VECTOR, normalized, n_diffusion_steps=2).save(tmp_path / "model")
        DeployedPolicy(DQS.load(tmp_path / "model"))


def test_observations_may_be_named_as_something_inside_the_file(tmp_path):
    names = ["t", "low", "high", "cat", "linear", "mul", "inside/cat", "batch", "observations", "robot/joint pos"]
    space = spaces.Dict({name: spaces.Box(-1.0, 1.0, (size,)) for size, name in enumerate(names, 1)})
    model = DQS("MultiInputPolicy", RandomEnv(space), **SMALL)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*will not be used.*")
        export_onnx(model, tmp_path / "policy.onnx")
    assert shapes(tmp_path / "policy.onnx") == {
        **{name: ["batch", size] for size, name in enumerate(names, 1)},
        "actions": ["batch", 2],
    }
    assert compare_with_predict(model, tmp_path / "policy.onnx").differences.max() < 1e-5


def test_infinite_observations_show_in_the_actions_of_the_file(tmp_path):
    for normalized in (None, {}):
        model = trained(DQS, "MlpPolicy", VECTOR, normalized, n_diffusion_steps=2)
        export_onnx(model, tmp_path / "policy.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
        for bad in (np.inf, -np.inf, np.nan):
            (actions,) = session.run(["actions"], {"observations": np.float32([[0.0, bad, 0.0], [0.0, 1.0, 0.0]])})
            assert np.isnan(actions[0]).all()
            assert np.isfinite(actions[1]).all()


@pytest.fixture(scope="module")
def model():
    return DQS("MlpPolicy", "Pendulum-v1", **SMALL)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2"])
def test_batch_size_that_cannot_be_is_named(batch_size, model, tmp_path):
    with pytest.raises(InputError, match=r"batch_size must be an integer >= 1, got .*any number"):
        export_onnx(model, tmp_path / "policy.onnx", batch_size=batch_size)


def test_observation_that_is_named_as_the_output_is_named(tmp_path):
    space = spaces.Dict({"actions": spaces.Box(-1.0, 1.0, (2,)), "speed": spaces.Box(-1.0, 1.0, (1,))})
    with pytest.raises(InputError, match="must not be named 'actions'"):
        export_onnx(DQS("MultiInputPolicy", RandomEnv(space), **SMALL), tmp_path / "policy.onnx")


def test_missing_extra_is_named(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript must be installed .* pip install 'sb3-dqs\[export\]'"):
        export_onnx(model, tmp_path / "policy.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"onnxruntime must be installed .* pip install 'sb3-dqs\[export\]'"):
        compare_with_predict(model, tmp_path / "policy.onnx")


def test_documentation_runs_as_printed_and_its_loop_without_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *in_torch, loop = sorted(blocks(page("docs/deploy.md"), "python"), key=lambda block: "import onnxruntime" in block)
    assert len([line for line in loop.splitlines() if line]) <= 15
    exec("".join(in_torch).replace("10_000", "110"), {})
    assert (tmp_path / "pendulum.pt2").is_file()
    result = run_without_torch(loop)
    angle, velocity = map(float, result.split())
    assert abs(angle) <= np.pi
    assert abs(velocity) <= 8


def test_example_acts_by_the_file_that_it_exports(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["deploy.py", "--steps", "101", "--output", "policy.onnx"])
    runpy.run_path(str(REPOSITORY / "examples" / "deploy.py"), run_name="__main__")
    output = capfd.readouterr().out
    assert shapes(tmp_path / "policy.onnx") == {"observations": [1, 3], "actions": [1, 1]}
    assert -2_000 < float(output.split("Return of an episode: ")[1].split()[0]) < 0
    assert float(output.split()[-3]) > 0, "an action by predict() takes so many times as long"
