"""What stands on a page? Its fenced blocks, its tables and its links, read as far as the documentation uses them."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")


def page(path):
    """The text of a file, its path relative to the repository."""
    return (REPOSITORY / path).read_text(encoding="utf-8")


def blocks(text, language):
    """The bodies of the fenced blocks of a language, in order."""
    return [fence["body"] for fence in FENCE.finditer(text) if fence["language"] == language]


def links(text):
    """The targets of the links and pictures, outside of fenced blocks."""
    return [link["target"] for link in LINK.finditer(FENCE.sub("", text))]


def table(text, *header):
    """The rows, as lists of cells, of the table whose header begins with these cells."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if _cells(line)[: len(header)] == list(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(_cells(line))
    assert rows, header
    return rows


def codes(cell):
    """What a cell has in backticks."""
    return CODE.findall(cell)


def _cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
