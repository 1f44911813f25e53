"""Does the advice on a missing module name an extra that brings it?"""

import runpy
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sb3_dqs.extras import EXTRAS, install_command, require


def distributions_of(extra):
    """What an extra asks for, and what that asks for in turn: names of distributions."""
    found, waiting = set(), [Requirement(f"sb3-dqs[{extra}]")]
    while waiting:
        wanted = waiting.pop()
        if wanted in found:
            continue
        found.add(wanted)
        for text in metadata.requires(wanted.name) or []:
            requirement = Requirement(text)
            environments = [{"extra": name} for name in wanted.extras] or [{"extra": ""}]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                waiting.append(requirement)
    # what DQS itself needs is there in any case
    return {canonicalize_name(wanted.name) for wanted in found}


@pytest.mark.parametrize("extra", sorted(set(EXTRAS.values())))
def test_extra_holds_the_modules_that_it_is_named_for(extra):
    held = distributions_of(extra)
    providers = metadata.packages_distributions()
    for module, named in EXTRAS.items():
        if named == extra:
            assert held & set(map(canonicalize_name, providers[module])), module


def test_missing_modules_end_a_script_with_one_sentence(monkeypatch):
    require("matplotlib", "tqdm")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(SystemExit) as exit_:
        require("tqdm", "matplotlib", "joblib")
    assert exit_.value.code == ("matplotlib and joblib must be installed for this: pip install 'sb3-dqs[benchmark,plots]'")
    assert install_command("rl_zoo3") == "pip install 'sb3-dqs[zoo]'"


@pytest.mark.parametrize("script", ["benchmarks.run", "benchmarks.report"])
def test_scripts_of_the_benchmark_say_what_is_missing(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, script, raising=False)
    with pytest.raises(SystemExit, match=r"yaml must be installed for this: pip install 'sb3-dqs\[benchmark\]'"):
        runpy.run_module(script, run_name="__main__")
