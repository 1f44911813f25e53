"""Does the zoo know our algorithms, however often they are entered?"""

from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.zoo import convert_dqs_params, register, sample_dqs_params


def test_tables_of_the_zoo_hold_our_entries():
    assert (ALGOS["dqs"], ALGOS["dqs_paper"]) == (DQS, PaperDQS)
    assert HYPERPARAMS_SAMPLER["dqs"] is sample_dqs_params
    assert HYPERPARAMS_CONVERTER["dqs"] is convert_dqs_params


def test_a_second_registration_changes_nothing():
    """The experiment manager's methods call those that they extend: extended twice, each addition would act twice."""
    before = dict(vars(ExperimentManager))
    assert hasattr(before["learn"], "__wrapped__")
    assert not hasattr(before["learn"].__wrapped__, "__wrapped__")
    register()
    assert dict(vars(ExperimentManager)) == before
    assert (ALGOS["dqs"], ALGOS["dqs_paper"]) == (DQS, PaperDQS)
