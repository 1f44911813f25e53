"""Does the page that leads from SAC to DQS tell the arguments and defaults that both have?"""

import inspect

import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_dqs import DQS, DiffusionPolicy
from sb3_dqs.critics import BatchRenormCritic
from sb3_dqs.signatures import COUNTERPARTS
from tests.docs.markdown import codes, page, table

PAGE = page("docs/from-sac.md")

# What the user never passes: to an algorithm, and to its policy, which gets it from the algorithm
NOT_TO_ALGORITHMS = {"self", "_init_setup_model"}
NOT_TO_POLICIES = {"self", "observation_space", "action_space", "lr_schedule"}
NOT_TO_POLICIES |= {"has_target_network", "has_average_critic", "has_average_actor"}
NOT_TO_POLICIES |= {"diffusion_kwargs", "refiner_kwargs", "corrector_kwargs", "n_action_candidates"}

# The defaults that are no literals, as the page writes them
NAMES = {"nn": nn, "th": th, "FlattenExtractor": FlattenExtractor, "BatchRenormCritic": BatchRenormCritic}

SAC_ARGUMENTS = table(PAGE, "SAC", "default", "DQS", "default")
OWN_ARGUMENTS = table(PAGE, "DQS", "default")
POLICY_ARGUMENTS = table(PAGE, "SAC's policy", "default", "DQS's policy", "default")


def defaults_of(constructor):
    """Name -> default of what the user may pass, in order; Parameter.empty where there is none."""
    hidden = NOT_TO_POLICIES if issubclass(constructor, BasePolicy) else NOT_TO_ALGORITHMS
    parameters = inspect.signature(constructor.__init__).parameters.items()
    return {name: parameter.default for name, parameter in parameters if name not in hidden}


def told(rows, name_column):
    """(name, default) of each row that names an argument in this column, its default in the next one."""
    for row in rows:
        if row[name_column]:
            (name,) = codes(row[name_column])
            default = row[name_column + 1]
            yield name, inspect.Parameter.empty if default == "required" else eval(default.strip("`"), dict(NAMES))


def test_every_argument_of_sac_has_its_row_and_default():
    assert list(told(SAC_ARGUMENTS, 0)) == list(defaults_of(SAC).items())


@pytest.mark.parametrize("row", SAC_ARGUMENTS, ids=lambda row: row[0])
def test_an_argument_of_sac_leads_to_its_counterpart_and_default(row):
    ((theirs, _),), ((ours, default),) = told([row], 0), told([row], 2)
    defaults = defaults_of(DQS)
    assert default == defaults[ours]
    if theirs in defaults:
        assert ours == theirs
    else:
        # as the error tells it
        assert COUNTERPARTS[theirs].replace(":", ",").split(",")[0] == ours


def test_every_other_argument_of_dqs_has_its_row_and_default():
    known = defaults_of(SAC)
    own = {name: default for name, default in defaults_of(DQS).items() if name not in known}
    assert list(told(OWN_ARGUMENTS, 0)) == list(own.items())


def test_every_argument_of_sacs_policy_has_its_row_and_default():
    assert list(told(POLICY_ARGUMENTS, 0)) == list(defaults_of(SACPolicy).items())


def test_every_argument_of_our_policy_has_its_row_and_default():
    assert dict(told(POLICY_ARGUMENTS, 2)) == defaults_of(DiffusionPolicy)


def test_what_our_policy_has_not_is_refused_by_name():
    theirs_alone = {codes(row[0])[0] for row in POLICY_ARGUMENTS if not row[2]}
    assert theirs_alone == defaults_of(SACPolicy).keys() - defaults_of(DiffusionPolicy).keys()
    assert theirs_alone <= COUNTERPARTS.keys()
