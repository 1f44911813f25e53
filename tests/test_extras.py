"""Does the advice on a missing module name an extra that brings it?"""

import runpy
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sb3_dqs.extras import EXTRAS, install_command, require

REPOSITORY = Path(__file__).parents[1]


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


SCRIPTS = sorted(path for path in (REPOSITORY / "benchmarks").glob("*.py") if '__name__ == "__main__"' in path.read_text())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_of_the_benchmark_say_what_is_missing_and_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    name = ".".join(script.relative_to(REPOSITORY).with_suffix("").parts)
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module(name, run_name="__main__")
    assert exit_.value.code == 0
    assert f"python -m {name}" in capsys.readouterr().out
    if name in ("benchmarks.sampler_grids", "benchmarks.mountain_car"):  # which need nothing
        return
    monkeypatch.setitem(sys.modules, "yaml", None)
    for loaded in [module for module in sys.modules if module.startswith("benchmarks.")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(SystemExit, match=r"yaml must be installed for this: pip install 'sb3-dqs\[benchmark\]'"):
        runpy.run_module(name, run_name="__main__")
