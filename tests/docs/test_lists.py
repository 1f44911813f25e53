"""Is every example, environment and file of the package on the page that lists them?"""

import inspect
import re

import gymnasium as gym
import pytest
from gymnasium.envs.registration import load_env_creator

from tests.docs.markdown import REPOSITORY, blocks, codes, page, table


def test_every_example_has_a_row():
    listed = [codes(row[0])[0] for row in table(page("docs/examples.md"), "file", "what")]
    assert sorted(listed) == sorted(path.name for path in (REPOSITORY / "examples").glob("*.py"))


ENVIRONMENTS = {codes(row[0])[0]: codes(row[2]) for row in table(page("docs/environments.md"), "id", "what", "arguments")}


def test_every_environment_has_a_row():
    assert set(ENVIRONMENTS) == {env_id for env_id, spec in gym.registry.items() if spec.namespace == "sb3_dqs"}


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_the_row_of_an_environment_has_all_of_its_arguments(env_id):
    parameters = inspect.signature(load_env_creator(gym.spec(env_id).entry_point)).parameters
    assert ENVIRONMENTS[env_id] == [name for name in parameters if name != "render_mode"]


def test_the_map_of_the_code_shows_every_file_and_folder():
    (code_map,) = blocks(page("docs/map.md"), "")
    # indented by two are those of the package, by four those of its folder diffusion/
    shown = {indent: set(re.findall(rf"^ {{{indent}}}(\S.*?)  ", code_map, re.MULTILINE)) for indent in (2, 4)}
    shown = {indent: {name for names in lines for name in names.split(", ")} for indent, lines in shown.items()}
    for indent, folder in ((2, "sb3_dqs"), (4, "sb3_dqs/diffusion")):
        paths = [path for path in (REPOSITORY / folder).iterdir() if not path.name.startswith("__")]
        names = {f"{path.name}/" if path.is_dir() else path.name for path in paths if path.is_dir() or path.suffix == ".py"}
        # it holds a version number and nothing else
        assert shown[indent] == names - {"version.py"}
