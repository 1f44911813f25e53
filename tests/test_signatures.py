"""Are arguments that do not exist refused, with their counterpart or the nearest match?"""

import pytest

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.signatures import arguments_of
from tests.conftest import ALGORITHMS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ent_coef", "no argument 'ent_coef'; its counterpart: temperature"),
        ("target_update_interval", "no argument 'target_update_interval'; its counterpart: tau"),
        ("use_sde", "no argument 'use_sde'; its counterpart: exploration_correlation_time"),
        ("sde_sample_freq", "counterpart: exploration_correlation_time"),
        ("use_sde_at_warmup", "counterpart: exploration_correlation_time"),
        ("target_policy_noise", "counterpart: temperature"),
        ("target_noise_clip", "counterpart: temperature"),
        ("top_quantiles_to_drop_per_net", "counterpart: .*n_critics"),
        ("learnin_rate", r"did you mean 'learning_rate'\?"),
        ("xyz", "it has .*'actor_batch_size'"),
    ],
)
@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_unknown_argument_names_its_counterpart_at_construction_and_at_load(name, message, error, files):
    for key, (algorithm, small) in ALGORITHMS.items():
        with pytest.raises(error, match=f"{algorithm.__name__} has {message}" if message.startswith("no") else message):
            algorithm("MlpPolicy", "Pendulum-v1", **small, **{name: 1})
        with pytest.raises(error, match=message):
            algorithm.load(files / key, **{name: 1})


@pytest.mark.parametrize("name", sorted(arguments_of(DQS.__init__) - arguments_of(PaperDQS.__init__)))
def test_what_the_published_algorithm_has_not_is_refused_by_name(name, files):
    with pytest.raises(ValueError, match=f"PaperDQS has no argument '{name}'; it settles this setting of its base itself"):
        PaperDQS("MlpPolicy", "Pendulum-v1", **{name: 1})
    with pytest.raises(ValueError, match=f"PaperDQS has no argument '{name}'"):
        PaperDQS.load(files / "paper", **{name: 1})


def test_a_custom_object_that_is_nearly_a_setting_is_refused(files):
    with pytest.raises(ValueError, match=r"custom_objects holds 'temprature'.*did you mean 'temperature'"):
        DQS.load(files / "ours", custom_objects={"temprature": 1.0})
    # what is no setting at all may be any attribute of a model
    assert DQS.load(files / "ours", custom_objects={"temperature": 0.5, "_stats_window_size": 3}).thermostat.value == 0.5


@pytest.mark.parametrize(
    ("algorithm", "name", "default"),
    [
        (DQS, "actor_batch_size", 128),
        (PaperDQS, "actor_batch_size", 256),
        (DQS, "batch_size", 256),
        (DQS, "buffer_size", 10**6),
    ],
)
def test_the_default_that_an_error_tells_is_that_of_the_algorithm(algorithm, name, default):
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got 0; {default} is the default"):
        algorithm("MlpPolicy", "Pendulum-v1", **{name: 0})
