"""Do the Python blocks of the documentation run as printed, and do its links lead somewhere?"""

import ast
import importlib
import re

import pytest

from tests.docs.markdown import REPOSITORY, blocks, links, page

# What their blocks need is on everyone's machine; blocks of other pages need a database, a trained agent or hours
PAGES = [
    "README.md",
    "docs/index.md",
    "docs/algorithm.md",
    "docs/from-sac.md",
    "docs/environments.md",
    "docs/pictures-and-measures.md",
]

# So that the blocks take seconds: fewer steps of learning, beyond the warm-up of 100 and so with updates, fewer episodes of
# evaluation. All else runs as it stands.
SHORTER = {
    r"(?<=\.learn\()[\d_]+": "130",
    r"(?<=n_eval_episodes=)[\d_]+": "1",
}


@pytest.mark.parametrize("path", PAGES)
def test_python_blocks_run(path, tmp_path, monkeypatch):
    found = blocks(page(path), "python")
    assert found
    # what a block saves, a later one of the page may load
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(found, 1):
        n_learn = len(re.findall(r"\.learn\(", block))
        for pattern, shorter in SHORTER.items():
            block, n_replaced = re.subn(pattern, shorter, block)
            if "learn" in pattern:
                assert n_replaced == n_learn, f"{path}: learn() in block {number} has no number of steps to shorten"
        exec(compile(block, f"{path}, Python block {number}", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("path", sorted({f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")} - set(PAGES)))
def test_python_blocks_of_other_pages_import_what_there_is(path):
    for block in blocks(page(path), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sb3_dqs":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), f"{path}: {ast.unparse(node)}"


def test_the_example_of_the_readme_is_ten_lines():
    (example,) = blocks(page("README.md"), "python")
    assert len([line for line in example.splitlines() if line]) <= 10
    assert example.count("predict(") == example.count(".learn(") == 1


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md"])
def test_relative_links_lead_to_files(path):
    # make docs checks those of docs/
    relative = [link for link in links(page(path)) if not link.startswith("https://")]
    assert relative
    missing = [link for link in relative if not (REPOSITORY / link).is_file()]
    assert not missing
