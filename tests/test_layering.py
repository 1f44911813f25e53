"""Does data flow one way? ``diffusion/`` is pure torch and reaches up to nothing; only ``checks`` lies below it."""

import ast
import subprocess
import sys
from pathlib import Path

import sb3_dqs

PACKAGE = Path(sb3_dqs.__file__).parent
ALLOWED = {*sys.stdlib_module_names, "torch", "sb3_dqs.diffusion", "sb3_dqs.checks"}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


def test_diffusion_imports_neither_sb3_nor_gymnasium():
    files = sorted((PACKAGE / "diffusion").glob("*.py"))
    assert len(files) >= 8
    for path in files:
        for module in imported_modules(path):
            assert any(module == name or module.startswith(f"{name}.") for name in ALLOWED), f"{path.name} imports {module}"


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
