"""Does data flow one way? Every room of the house imports from the floors below it, and a default stands in one place."""

import ast
import graphlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

import sb3_dqs
from sb3_dqs import DQS, DiffusionPolicy, PaperDQS, settings
from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.diffusion.paper import PaperDiffusion
from sb3_dqs.signatures import arguments_of

PACKAGE = Path(sb3_dqs.__file__).parent

# From the ground up: a room may import from floors below its own, never from its neighbours
FLOORS = (
    {"averaging", "checks", "extras", "usage", "version"},
    {"diffusion", "temperature", "update_log", "envs", "signatures", "replay"},
    {"critics"},
    {"answers", "settings", "policies", "regression_points"},
    {"exploration", "live_settings"},
    {"dqs"},
    {"paper"},
    {""},  # what `import sb3_dqs` shows
    {"inspection", "gpu", "export"},
    {"zoo"},
    {"command_line"},
    {"__main__"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

KNOWN_TO_DIFFUSION = {*sys.stdlib_module_names, "torch", "sb3_dqs.diffusion", "sb3_dqs.checks"}

MODULES = {
    ".".join(["sb3_dqs", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Settings that DQS has and SB3's algorithms have not
OWN_SETTINGS = arguments_of(DQS.__init__) - arguments_of(OffPolicyAlgorithm.__init__)


def room_of(module):
    """The file or folder in the package that holds a module; "" is the package itself."""
    return module.removeprefix("sb3_dqs").lstrip(".").split(".")[0]


def imported_modules(module):
    """What a module imports, wherever in its file, except for the type checker alone."""
    waiting: list[ast.AST] = [ast.parse(MODULES[module].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module
        waiting += ast.iter_child_nodes(node)


def test_every_room_has_a_floor():
    assert {room_of(module) for module in MODULES} == set(FLOOR_OF)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_down_the_floors(module):
    room = room_of(module)
    for imported in imported_modules(module):
        if imported in MODULES and room_of(imported) != room:
            assert FLOOR_OF[room_of(imported)] < FLOOR_OF[room], f"{module} imports {imported}, which is not below it"


def test_no_module_imports_itself_by_a_detour():
    graph = {module: set(imported_modules(module)) & MODULES.keys() for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def test_diffusion_imports_neither_sb3_nor_gymnasium():
    parts = [module for module in MODULES if room_of(module) == "diffusion"]
    assert len(parts) >= 8
    for part in parts:
        for module in imported_modules(part):
            assert any(module == name or module.startswith(f"{name}.") for name in KNOWN_TO_DIFFUSION), f"{part}: {module}"


def test_diffusion_and_checks_can_be_used_where_sb3_is_not_imported():
    # the package's own __init__ imports SB3, so the parts are loaded beside an empty package
    program = (
        "import sys, types; package = types.ModuleType('sb3_dqs'); "
        f"package.__path__ = [{str(PACKAGE)!r}]; sys.modules['sb3_dqs'] = package; "
        "import sb3_dqs.diffusion.box, sb3_dqs.diffusion.paper; "
        "assert not {'stable_baselines3', 'gymnasium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_the_package_does_not_import_the_zoo():
    program = (
        "import sys, sb3_dqs; assert not {'rl_zoo3', 'optuna', 'matplotlib.pyplot'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def defaults_in(module):
    """(function, argument) for every default in the signatures of a module."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args]
            with_default = arguments[len(arguments) - len(node.args.defaults) :]
            with_default += [a for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
            yield from ((node.name, argument.arg) for argument in with_default)


@pytest.mark.parametrize("room", ["diffusion", "critics", "temperature", "exploration", "settings", "policies", "dqs"])
def test_the_default_of_a_setting_is_written_in_the_signature_of_the_algorithm_alone(room):
    assert {"n_score_samples", "temperature", "n_action_candidates"} <= OWN_SETTINGS
    doubles = {
        (module, function, argument)
        for module in MODULES
        if room_of(module) == room
        for function, argument in defaults_in(module)
        if argument in OWN_SETTINGS and (module, function) != ("sb3_dqs.dqs", "__init__")
    }
    assert not doubles


@pytest.mark.parametrize(
    ("part", "given_by_the_algorithm"),
    [
        (BoxDiffusion, {"n_score_samples", "n_diffusion_steps"}),
        (PaperDiffusion, {"n_score_samples", "n_diffusion_steps"}),
        (Corrector, {"n_corrector_proposals"}),
        (DiffusionPolicy, {*settings.BUILT_IN_POLICY_KWARGS, "n_action_candidates"}),
        (DiffusionPolicy.actor_class, {"diffusion_kwargs", "n_action_candidates"}),
    ],
)
def test_a_part_has_no_default_for_what_the_algorithm_gives_it(part, given_by_the_algorithm):
    parameters = inspect.signature(part).parameters
    assert {parameters[name].default for name in given_by_the_algorithm} == {inspect.Parameter.empty}


@pytest.mark.parametrize("algorithm", [DQS, PaperDQS])
def test_no_default_stands_for_another(algorithm):
    # None is where SB3 has None: no noise, no class chosen, no further arguments
    nones = {name for name, p in inspect.signature(algorithm.__init__).parameters.items() if p.default is None}
    assert nones & OWN_SETTINGS == {"component_kwargs"}


def test_train_is_a_table_of_contents():
    # SB3's SAC has 101 lines
    assert len(inspect.getsource(DQS.train).splitlines()) <= 25
