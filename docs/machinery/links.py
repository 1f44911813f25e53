"""How does the site link to files of the repository outside of docs/? It publishes them, as text that a browser shows."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# [text](../path): out of docs/, whose pages all lie at its top
OUTWARD_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\(\.\./(?P<path>[^)#]+)\)")

FOLDER = "repository"

# What browsers show as it is; the others get the ending of a text
SHOWN = {".html", ".png", ".svg", ".txt"}


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """
    :param markdown: of a page
    :param page: its place in the site
    :param config: of the site
    :param files: of the site, to which those that the page links to are added
    :return: the page, with links to what is published; links to folders are plain text
    :raises FileNotFoundError: if a linked file does not exist
    """
    repository = Path(config.config_file_path).parent

    def published(link: re.Match) -> str:
        path = repository / link["path"]
        if path.is_dir():
            return link["text"]
        if not path.is_file():
            raise FileNotFoundError(f"{page.file.src_uri} links to ../{link['path']}, which does not exist")
        uri = posixpath.join(FOLDER, link["path"]) + ("" if path.suffix in SHOWN else ".txt")
        if uri not in files.src_uris:
            files.append(File.generated(config, uri, content=path.read_bytes()))
        return f"[{link['text']}]({uri})"

    return OUTWARD_LINK.sub(published, markdown)
