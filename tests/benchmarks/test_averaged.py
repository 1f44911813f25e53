"""Does CrossQ with an averaged actor train as CrossQ does, and act by the average?"""

import numpy as np
import pytest
import torch as th
from sb3_contrib import CrossQ

from benchmarks.averaged import AveragedCrossQ

SETTINGS = {"learning_starts": 20, "batch_size": 16, "seed": 0, "policy_kwargs": {"net_arch": {"pi": [8], "qf": [8]}}}


@pytest.fixture(scope="module")
def models():
    return {algorithm: algorithm("MlpPolicy", "Pendulum-v1", **SETTINGS).learn(60) for algorithm in (CrossQ, AveragedCrossQ)}


def test_training_is_that_of_crossq(models):
    ours, theirs = models[AveragedCrossQ].actor.state_dict(), models[CrossQ].actor.state_dict()
    assert all(th.equal(ours[name], theirs[name]) for name in theirs)
    taken = [model.replay_buffer.actions[:60] for model in models.values()]
    assert np.array_equal(*taken), "explored by the actor itself"


def test_predict_asks_the_average(models, tmp_path):
    model = models[AveragedCrossQ]
    # 40 updates, every third of the actor
    assert model.policy.n_averaged_actors == 13
    observations = th.randn(5, 3, generator=th.Generator().manual_seed(0)).numpy()
    with th.no_grad():
        average, actor = (
            part(th.as_tensor(observations), deterministic=True).numpy() for part in (model.policy.actor_average, model.actor)
        )
    # torques up to 2
    assert np.allclose(model.predict(observations, deterministic=True)[0], 2 * average, atol=1e-6)
    assert not np.allclose(average, actor, atol=1e-4)
    model.save(tmp_path / "model")
    loaded = AveragedCrossQ.load(tmp_path / "model")
    assert np.array_equal(*(m.predict(observations, deterministic=True)[0] for m in (model, loaded)))


def test_average_of_the_first_weights_is_those_weights():
    model = AveragedCrossQ("MlpPolicy", "Pendulum-v1", **SETTINGS).learn(23)
    assert model.policy.n_averaged_actors == 1
    ours, theirs = model.policy.actor_average.state_dict(), model.actor.state_dict()
    assert all(th.equal(ours[name], theirs[name]) for name in theirs)
