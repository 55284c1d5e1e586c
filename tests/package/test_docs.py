"""The documentation: the site builds without a warning, loads nothing from the network and shows every public name, and no link is dead."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "network", "training", "export", "benchmarks")
FENCE = re.compile(r"^ *(```+).*?^ *\1 *$", re.S | re.M)
LINK = re.compile(r"""\]\(([^)\s]+)\)|\b(?:src|href)="([^"]+)\"""")
HEADING = re.compile(r"^#+ (.+)$", re.M)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    return folder


class _Page(HTMLParser):
    """What a page loads, and the places in it that a link can name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.assets: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        source = given.get("src") or (given.get("href") if tag == "link" and given.get("rel") not in ("canonical", "next", "prev") else None)
        if source:
            self.assets.append(source)
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if given.get("id"):
            self.ids.append(str(given["id"]))


def test_pages_load_nothing_from_the_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        for asset in _Page(path).assets:
            assert not re.match("(https?:)?//", asset), (path, asset)
            assert asset.startswith("data:") or path.name == "404.html" or (path.parent / asset).resolve().exists(), (path, asset)
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_links_of_built_pages_lead_somewhere(site: Path) -> None:
    pages = {path: _Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for link in page.links:
            if not re.match("(https?|mailto):", link):
                file, _, anchor = link.partition("#")
                target = (path.parent / file).resolve() if file else path
                assert target.exists(), (path, link)
                assert not anchor or anchor == "__skip" or anchor in pages[target].ids, (path, link)


def test_lists_are_lists(site: Path) -> None:
    """GitHub takes a list right after a paragraph, Python-Markdown needs an empty line between."""
    assert [
        path.name for path in site.rglob("*.html") if re.search(r"<p>(?:(?!</p>).)*\n *(?:[-*]|\d+\.) ", path.read_text(encoding="utf-8"), re.S)
    ] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_shows_each_public_name(package: str, site: Path) -> None:
    shown = {name for name in _Page(site / f"api/{package}.html").ids if name.count(".") == 2}
    assert shown == {f"clipstep.{package}.{name}" for name in importlib.import_module(f"clipstep.{package}").__all__}


def test_docstrings_are_markdown() -> None:
    """A role or a literal block of reStructuredText would stand in the reference as it is."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [
        name for name in listed if re.search(r":(func|class|mod|meth|attr|data|exc|obj):`|^ *::$", (ROOT / name).read_text(encoding="utf-8"), re.M)
    ] == []


def test_the_reference_shows_the_version(site: Path) -> None:
    assert "clipstep.__version__" in _Page(site / "api/clipstep.html").ids


def dead_links(page: Path) -> list[str]:
    """The links of a Markdown page to files that are not there, or to headings that no page has."""
    return [link for link in _links(page) if not _leads_somewhere(page, link)]


def _links(page: Path) -> list[str]:
    found = [markdown or html for markdown, html in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))]
    return [link for link in found if not re.match("(https?|mailto):", link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = page.parent / file if file else page
    return target.exists() and (not anchor or (target.suffix == ".md" and anchor in _anchors(target)))


def _anchors(page: Path) -> set[str]:
    slug = slugify(case="lower")
    return {slug(re.sub("[`*]", "", heading), "-") for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))}


def _sources(suffix: str) -> list[Path]:
    """The repository's files whose names end so."""
    folders = ("android_demo", "benchmarks", "docs", "export", "network", "runtime", "tests", "training")
    return sorted([*ROOT.glob(f"*{suffix}"), *(path for folder in folders for path in (ROOT / folder).rglob(f"*{suffix}"))])


@pytest.mark.parametrize("page", _sources(".md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_in_the_repository_is_dead(page: Path) -> None:
    assert dead_links(page) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A title, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-title-with-code) [b](other.md#none) [c](none.md) [d](#none) [e](https://example.com)\n\n```\n[f](none.md)\n```\n\n"
        '<img src="none.png"> ![g](other.png)\n'
    )
    assert dead_links(page) == ["other.md#none", "none.md", "#none", "none.png", "other.png"]


def test_files_and_tables_that_contributing_names_are_there() -> None:
    """A stranger who is told which files to touch finds them, and the tables in them."""
    text = FENCE.sub("", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    named = re.findall(r"`((?:[\w.]+/)+[\w.*]*)`", text)
    absent = [path for path in named if "NAME" not in path and not path.startswith((".venv/", "build/")) and not list(ROOT.glob(path.rstrip("/")))]
    assert len(named) > 40 and absent == []
    code = "".join(path.read_text(encoding="utf-8") for path in _sources(".py"))
    tables = re.findall(r"`([A-Z_]{4,})`", text)
    assert len(tables) > 10 and [name for name in tables if not re.search(rf"^{name}\b.* = ", code, re.M)] == []
