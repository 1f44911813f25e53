"""How do reST roles in docstrings become links? A full path is a cross-reference of the site, and a short name is code."""

import re
from typing import Any

import griffe

# :class:`~sb3_dqs.dqs.DQS` or :meth:`observe`; with ~ the last part of the path is the text
ROLE = re.compile(r":(?:class|meth|func|attr|mod|data):`(?P<short>~?)(?P<path>[\w.]+)`")


class Roles(griffe.Extension):
    """Turns the roles of every docstring that is loaded into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """
        :param obj: of the package, just loaded
        """
        if obj.docstring:
            obj.docstring.value = ROLE.sub(_as_markdown, obj.docstring.value)


def _as_markdown(role: re.Match) -> str:
    path = role["path"]
    name = path.rpartition(".")[2] if role["short"] else path
    return f"[`{name}`][{path}]" if path.startswith("sb3_dqs.") else f"`{name}`"
