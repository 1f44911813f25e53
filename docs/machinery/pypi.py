"""
The README as PyPI shows it, where links and pictures need whole addresses: written over the file that is named.

    python docs/machinery/pypi.py build/source/README.md https://github.com/OWNER/sb3-dqs
"""

import re
import sys
from pathlib import Path

# Picture or link, what it shows, and a target in the repository
RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


def with_whole_addresses(text: str, repository: str) -> str:
    """
    :param text: Markdown, whose targets are relative to the top of the repository
    :param repository: its address
    :return: the same, with targets on its branch main
    """

    def whole(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"
        return f"{link[1]}[{link[2]}]({repository.rstrip('/')}/{kind}/main/{link[3]})"

    return RELATIVE_LINK.sub(whole, text)


if __name__ == "__main__":
    path, address = Path(sys.argv[1]), sys.argv[2]
    path.write_text(with_whole_addresses(path.read_text(), address))
