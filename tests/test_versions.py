"""Are the lowest versions that are installed and run by ``make test-lowest`` those that the package promises?"""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parents[1]

# Extras whose requirements the lowest versions are installed with
EXTRAS = {"", "maze"}


def pinned(path):
    """Exact versions of a file of constraints, by name, for the oldest Python."""
    lines = [Requirement(line) for line in path.read_text().splitlines() if not line.startswith("#")]
    lines = [line for line in lines if line.marker is None or line.marker.evaluate({"python_version": "3.10"})]
    return {line.name: Version(str(line.specifier).removeprefix("==")) for line in lines}


def promised():
    """Lower bound of every requirement of the package and of the extras that are tried."""
    for text in metadata.requires("sb3-dqs"):
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS):
            (bound,) = [entry.version for entry in requirement.specifier if entry.operator == ">="]
            yield requirement.name, Version(bound)


def test_every_lower_bound_is_tried():
    makefile = (REPOSITORY / "Makefile").read_text()
    tried = pinned(REPOSITORY / "constraints-lowest.txt")
    tried["torch"] = Version(re.search(r"^LOWEST_TORCH \?= (.+)$", makefile, re.MULTILINE)[1])
    assert tried == dict(promised())


def test_torch_of_continuous_integration_is_the_one_that_is_there_already():
    named = re.search(r"make test-lowest LOWEST_TORCH=(\S+)", (REPOSITORY / ".ci/run").read_text())[1]
    assert Version(named) == pinned(REPOSITORY / "constraints.txt")["torch"]


def test_exact_versions_lie_within_the_bounds():
    exact = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned(REPOSITORY / "constraints.txt").items()}
    for text in metadata.requires("sb3-dqs"):
        requirement = Requirement(text)
        if requirement.name != "sb3-dqs":
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            assert requirement.specifier.contains(exact[name]), requirement
