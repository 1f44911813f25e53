"""Does the page about a reward that does not go up explain every key that a run logs, and no other?"""

import re

from stable_baselines3.common.logger import KVWriter, Logger

from sb3_dqs import DQS, PaperDQS
from tests.conftest import SMALL, SMALL_PAPER
from tests.docs.markdown import codes, page, table

PAGE = page("docs/reward-does-not-go-up.md")
KEY = re.compile(r"(?:train|rollout|time)/\w+")


class Keys(KVWriter):
    """A writer of SB3's logger that keeps the names of what is logged."""

    def __init__(self):
        self.names = set()

    def write(self, key_values, key_excluded, step=0):
        self.names |= set(key_values)

    def close(self):
        pass


def keys_logged_by(algorithm, settings):
    """Names of what a short run logs, in an environment that tells success."""
    keys = Keys()
    model = algorithm("MlpPolicy", "sb3_dqs/MultiGoal-v0", **settings)
    model.set_logger(Logger(None, [keys]))
    model.learn(100, log_interval=1)
    return keys.names


def explained():
    return {key for row in table(PAGE, "key", "what") for key in codes(row[0])}


def test_every_logged_key_has_a_row():
    assert explained() == keys_logged_by(DQS, SMALL)


def test_the_published_algorithm_logs_no_other_keys():
    assert keys_logged_by(PaperDQS, SMALL_PAPER) < explained()


def test_remedies_look_at_keys_that_are_logged():
    looked_at = set(KEY.findall(PAGE))
    assert len(looked_at) > 10
    assert looked_at <= explained()
