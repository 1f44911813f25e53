"""Do links and pictures of the README lead somewhere on PyPI, which knows no files beside it?"""

import runpy

from tests.docs.markdown import REPOSITORY, page

ADDRESS = "https://github.com/OWNER/sb3-dqs"
SCRIPT = str(REPOSITORY / "docs/machinery/pypi.py")


def test_pictures_are_raw_links_are_pages_and_what_was_whole_stays():
    with_whole_addresses = runpy.run_path(SCRIPT)["with_whole_addresses"]
    text = "![A](docs/a.png) and [b](docs/b.md), [c](https://example.org/c), [d](#d) and f(x)[i](CHANGELOG.md)"
    assert with_whole_addresses(text, ADDRESS + "/") == (
        f"![A]({ADDRESS}/raw/main/docs/a.png) and [b]({ADDRESS}/blob/main/docs/b.md), [c](https://example.org/c), [d](#d) and "
        f"f(x)[i]({ADDRESS}/blob/main/CHANGELOG.md)"
    )


def test_every_target_of_the_readme_becomes_whole(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text(page("README.md"))
    monkeypatch.setattr("sys.argv", [SCRIPT, str(readme), ADDRESS])
    runpy.run_path(SCRIPT, run_name="__main__")
    targets = [part.split(")")[0] for part in readme.read_text().split("](")[1:]]
    assert len(targets) > 10
    assert all(target.startswith("https://") for target in targets)
