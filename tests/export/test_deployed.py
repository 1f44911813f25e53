"""Is a policy, as SB3's documentation exports it or as a whole, the same function outside of Python's eager world?"""

import pickle
import warnings

import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage
from torch.utils._pytree import tree_leaves

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import InputError
from sb3_dqs.critics import smallest_q
from sb3_dqs.export import DeployedPolicy
from tests.conftest import SMALL, SMALL_PAPER, RandomEnv
from tests.export.models import DICT, IMAGE, VECTOR, in_vector, observations_for, trained


class OnnxableSB3Policy(th.nn.Module):
    """The recipe of SB3's documentation: observations as the networks get them, actions in [-1, 1]."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, observation):
        return self.policy(observation, deterministic=True)


@pytest.fixture(scope="module", params=[DQS, PaperDQS], ids=["ours", "paper"])
def recipe(request):
    """The module of the recipe, 1,000 observations, and the actions that the policy gives there."""
    # few passes of the sampler, the first of which sees both walls: exporters take their time
    model = trained(request.param, "MlpPolicy", VECTOR, gain=30.0, n_diffusion_steps=4)
    observations, _ = observations_for(model, VECTOR)
    onnxable = OnnxableSB3Policy(model.policy).eval()
    with th.no_grad():
        actions = onnxable(th.as_tensor(observations)).numpy()
    assert 0.02 < np.mean(np.abs(actions) > 1 - 1e-6) < 0.98, "at walls and between them"
    return onnxable, observations, actions


def assert_same_actions(policy, observations, actions, expected):
    """To 1e-5, but where two candidates have the same Q to rounding: far outside of what it was trained on, Q is large."""
    differs = np.abs(actions - expected).max(axis=1) > 1e-5
    assert differs.sum() <= 2
    if differs.any():
        rows, both = th.as_tensor(observations[differs]), th.as_tensor(np.stack([actions, expected])[:, differs])
        with th.no_grad():
            values = smallest_q(policy.law_critic, rows, both)
        th.testing.assert_close(values[0], values[1], rtol=1e-6, atol=0)


def test_onnx_by_the_recipe_and_the_exporter_that_traces(recipe, tmp_path):
    onnxable, observations, expected = recipe
    path = tmp_path / "policy.onnx"
    with warnings.catch_warnings():
        # it is deprecated, and tells what it makes a constant of: sizes of networks
        warnings.simplefilter("ignore")
        th.onnx.export(
            onnxable,
            (th.randn(1, 3),),
            path,
            opset_version=17,
            input_names=["input"],
            dynamic_axes={"input": {0: "batch"}},
            dynamo=False,
        )
    (actions,) = onnxruntime.InferenceSession(path).run(None, {"input": observations})
    assert_same_actions(onnxable.policy, observations, actions, expected)


def test_onnx_by_the_recipe_and_the_present_exporter(recipe, tmp_path):
    onnxable, observations, expected = recipe
    if isinstance(onnxable.policy, PaperDQS.policy_aliases["MlpPolicy"]):
        pytest.skip("what it has beyond ours, test_onnx.py exports")
    path = tmp_path / "policy.onnx"
    th.onnx.export(onnxable, (th.randn(1, 3),), path, input_names=["input"], dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    actions = np.concatenate([session.run(None, {"input": row})[0] for row in observations[:, None]])
    assert_same_actions(onnxable.policy, observations, actions, expected)


def test_trace_by_the_recipe(recipe, tmp_path):
    onnxable, observations, expected = recipe
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", th.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = th.jit.freeze(th.jit.trace(onnxable, th.randn(1, 3)))
        th.jit.save(traced, tmp_path / "traced.pt")
        loaded = th.jit.load(tmp_path / "traced.pt")
    actions = loaded(th.as_tensor(observations)).numpy()
    assert_same_actions(onnxable.policy, observations, actions, expected)


@pytest.mark.parametrize(("policy", "space"), [("CnnPolicy", IMAGE), ("MultiInputPolicy", DICT)])
def test_the_recipe_for_images_and_dictionaries(policy, space, tmp_path):
    # a seed whose best candidates do not tie: rounding would decide between them
    model = DQS(policy, in_vector(RandomEnv(space), None), seed=1, buffer_size=50).learn(25)
    rows, _ = model.policy.obs_to_tensor(model.get_env().reset())
    onnxable = OnnxableSB3Policy(model.policy).eval()
    path = tmp_path / "policy.onnx"
    # by name: a dictionary at the end of the arguments is taken for those that have names
    th.onnx.export(onnxable, (), path, kwargs={"observation": rows}, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    feeds = {part.name: value.numpy() for part, value in zip(session.get_inputs(), tree_leaves(rows), strict=True)}
    with th.no_grad():
        np.testing.assert_allclose(session.run(None, feeds)[0], onnxable(rows).numpy(), atol=1e-5)


def test_the_whole_can_be_traced():
    model = trained(DQS, "MlpPolicy", VECTOR, {"clip_obs": 7.0}, n_diffusion_steps=4)
    deployed, (observations, _) = DeployedPolicy(model), observations_for(model, VECTOR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", th.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = th.jit.trace(deployed, deployed.examples(2))
    rows = th.as_tensor(observations[:50])
    with th.no_grad():
        th.testing.assert_close(traced(rows), deployed(rows), atol=1e-5, rtol=0)


def test_torch_export_by_the_recipe(recipe):
    onnxable, observations, expected = recipe
    batch = {0: th.export.Dim("batch")}
    program = th.export.export(onnxable, (th.randn(2, 3),), dynamic_shapes=(batch,))
    with th.no_grad():
        actions = program.module()(th.as_tensor(observations)).numpy()
    assert_same_actions(onnxable.policy, observations, actions, expected)


@pytest.mark.parametrize(
    ("policy", "space", "normalized"),
    [
        ("MlpPolicy", VECTOR, {}),
        ("MlpPolicy", VECTOR, {"norm_obs": False}),
        ("MlpPolicy", spaces.Box(-1e6, 1e6, (2, 3), np.float64), {"clip_obs": 3.0}),
        ("MlpPolicy", spaces.MultiDiscrete([3, 2]), None),
        ("CnnPolicy", IMAGE, None),
        ("CnnPolicy", spaces.Box(0, 255, (3, 36, 40), np.uint8), None),
        ("MultiInputPolicy", DICT, {"norm_obs_keys": ["speed"]}),
        ("MlpPolicy", IMAGE, {"clip_obs": 3.0}),
    ],
    ids=["vector", "not_normalised", "float64", "discrete", "channels_last", "channels_first", "dictionary", "image"],
)
def test_deployed_policy_takes_raw_observations_to_actions_of_the_environment(policy, space, normalized, algorithm):
    model = algorithm(policy, in_vector(RandomEnv(space), normalized), seed=0).learn(25)
    model.policy.set_training_mode(True)
    raw = [space.sample() for _ in range(5)]
    stacked = (
        {name: np.stack([row[name] for row in raw]) for name in space} if isinstance(space, spaces.Dict) else np.stack(raw)
    )
    deployed = DeployedPolicy(model)
    with th.no_grad():
        given = [stacked[name] for name in deployed.names] if isinstance(space, spaces.Dict) else [stacked]
        actions = deployed(*map(th.as_tensor, given)).numpy()
    expected, _ = model.predict(stacked if normalized is None else model.env.normalize_obs(stacked), deterministic=True)
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)
    assert actions.dtype == expected.dtype
    assert [(tuple(e.shape[1:]), e.dtype) for e in deployed.examples(3)] == [
        (g.shape[1:], th.as_tensor(g).dtype) for g in given
    ]


@pytest.mark.parametrize("is_file", [False, True], ids=["live", "file"])
def test_normalised_images_have_the_layout_of_the_environment(tmp_path, is_file):
    env = VecNormalize(VecTransposeImage(DummyVecEnv([lambda: RandomEnv(IMAGE)])), clip_obs=3.0)
    model = DQS("MlpPolicy", env, seed=0, **SMALL).learn(25)
    images = np.stack([IMAGE.sample() for _ in range(5)])
    expected, _ = model.predict(env.normalize_obs(images.transpose(0, 3, 1, 2)), deterministic=True)
    if is_file:
        env.save(tmp_path / "statistics.pkl")
        model.save(tmp_path / "model")
        model = DQS.load(tmp_path / "model")
        with pytest.raises(InputError, match=r"channels_last must be True or False .* no environment"):
            DeployedPolicy(model, tmp_path / "statistics.pkl")
        deployed = DeployedPolicy(model, tmp_path / "statistics.pkl", channels_last=True)
        images = np.float32(images)
    else:
        deployed = DeployedPolicy(model)
    (example,) = deployed.examples(5)
    assert (example.shape, example.dtype) == (images.shape, th.as_tensor(images).dtype)
    with th.no_grad():
        np.testing.assert_allclose(deployed(th.as_tensor(images)).numpy(), expected, rtol=0, atol=1e-6)


def test_statistics_with_an_environment_of_their_own_leave_images_to_the_model(tmp_path):
    model = DQS("MultiInputPolicy", RandomEnv(DICT), **SMALL)
    model.save(tmp_path / "model")
    model = DQS.load(tmp_path / "model")
    statistics = VecNormalize(DummyVecEnv([lambda: RandomEnv(DICT)]), norm_obs_keys=["speed"])
    deployed = DeployedPolicy(model, statistics, channels_last=True)
    assert {name: tuple(example.shape[1:]) for name, example in zip(deployed.names, deployed.examples(2), strict=True)} == {
        name: part.shape for name, part in DICT.items()
    }


def test_statistics_of_observations_far_from_zero_keep_their_variance():
    space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(space)]), norm_reward=False)
    model = DQS("MlpPolicy", env, seed=0, **SMALL).learn(25)
    env.obs_rms.mean += 1e6
    env.obs_rms.var *= 1e-4
    raw = env.obs_rms.mean + np.sqrt(env.obs_rms.var) * np.random.default_rng(0).standard_normal((50, 3))
    with th.no_grad():
        actions = DeployedPolicy(model)(th.as_tensor(raw)).numpy()
    expected, _ = model.predict(env.normalize_obs(raw), deterministic=True)
    assert np.ptp(expected, axis=0).min() > 0.1, "the observations matter"
    np.testing.assert_allclose(actions, expected, rtol=0, atol=1e-6)


# What cannot be deployed


def test_another_algorithm_is_named():
    with pytest.raises(InputError, match="model must be a DQS or PaperDQS, got SAC"):
        DeployedPolicy(SAC("MlpPolicy", "Pendulum-v1", buffer_size=1))


def test_layout_of_images_that_nothing_tells_is_asked_for(tmp_path):
    model = PaperDQS("CnnPolicy", RandomEnv(IMAGE), **SMALL_PAPER)
    model.save(tmp_path / "model")
    model = PaperDQS.load(tmp_path / "model")
    with pytest.raises(InputError, match=r"channels_last must be True or False .* no environment"):
        DeployedPolicy(model)
    assert DeployedPolicy(model, channels_last=True).examples(2)[0].shape == (2, 36, 40, 3)
    assert DeployedPolicy(model, channels_last=False).examples(2)[0].shape == (2, 3, 36, 40)


def test_a_layout_where_there_are_no_images_is_refused():
    with pytest.raises(InputError, match="channels_last=True is for images, and the model has none; leave it out"):
        DeployedPolicy(DQS("MlpPolicy", "Pendulum-v1", **SMALL), channels_last=True)


def test_statistics_that_are_none_or_of_other_observations_are_named(tmp_path):
    model = DQS("MlpPolicy", "Pendulum-v1", **SMALL)
    with pytest.raises(InputError, match=r"vec_normalize must be .* there is no nowhere\.pkl"):
        DeployedPolicy(model, "nowhere.pkl")
    with pytest.raises(InputError, match=r"vec_normalize must be .* got DummyVecEnv"):
        DeployedPolicy(model, model.env)
    other = VecNormalize(DummyVecEnv([lambda: RandomEnv(spaces.Box(-1.0, 1.0, (5,)))]))
    with pytest.raises(InputError, match=r"of shapes {'observations': \(5,\)}, the model has {'observations': \(3,\)}"):
        DeployedPolicy(model, other)


UNREADABLE = {
    "text": b"no statistics",
    "text that begins as a number does": b"Information\n",
    "empty": b"",
    "cut short": pickle.dumps(list(range(1_000)))[:500],
    "of a module that is not there": b"cnowhere_at_all\nStatistics\n.",
    "of a class that is not there": b"cmath\nStatistics\n.",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_statistics_that_cannot_be_read_are_named_with_the_cause(content, tmp_path):
    (tmp_path / "statistics.pkl").write_bytes(content)
    model = DQS("MlpPolicy", RandomEnv(VECTOR), **SMALL)
    with pytest.raises(InputError, match=r"vec_normalize must be .*statistics.pkl cannot be read: .+") as raised:
        DeployedPolicy(model, tmp_path / "statistics.pkl")
    assert raised.value.__cause__ is not None
