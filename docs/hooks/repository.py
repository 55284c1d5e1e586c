"""Takes files outside docs/ into the site, so that a link to one works in the repository and on the site alike.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages. Any other file of the repository that a page links becomes a page with its text.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages by the path of their file in the repository."""
LINK = re.compile(r"""(?P<before>\]\(|\b(?:src|href)=")(?P<target>[^)"\s#]*)(?P<anchor>#[^)"\s]*)?(?P<after>[)"])""")
FENCE = re.compile(r"^ *(```+).*?^ *\1 *$", re.S | re.M)
LANGUAGES = {".py": "python", ".kt": "kotlin", ".json": "json", ".toml": "toml", ".c": "c", ".cpp": "cpp"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside docs/."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir).name
    texts = {name: (root / name).read_text(encoding="utf-8") for name in PAGES}
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=texts[name]))
    texts |= {
        f"{docs}/{file.src_uri}": Path(str(file.abs_src_path)).read_text(encoding="utf-8")
        for file in files.documentation_pages()
        if file.abs_src_path
    }
    linked = {posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) for name, text in texts.items() for target in _targets(text)}
    for path in sorted(linked):
        if (root / path).is_file() and not path.startswith(f"{docs}/") and path not in PAGES:
            content = _source(path, (root / path).read_text(encoding="utf-8"))
            files.append(File.generated(config, _source_page(path), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the pages on the site."""
    docs = Path(config.docs_dir).name
    here = {page: name for name, page in PAGES.items()}.get(page.file.src_uri, f"{docs}/{page.file.src_uri}")

    def replaced(found: re.Match[str]) -> str:
        target = _on_site(here, found["target"], docs, files)
        return found.group() if target is None else f"{found['before']}{target}{found['anchor'] or ''}{found['after']}"

    return _outside_code(markdown, lambda text: LINK.sub(replaced, text))


def _on_site(here: str, target: str, docs: str, files: Files) -> str | None:
    """The link from the page of ``here`` to ``target``, both paths in the repository; None if it is to stay as it is."""
    if not target or ":" in target:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    page = PAGES.get(path) or (path.removeprefix(f"{docs}/") if path.startswith(f"{docs}/") else _source_page(path))
    own = PAGES.get(here) or here.removeprefix(f"{docs}/")
    return posixpath.relpath(page, posixpath.dirname(own) or ".") if files.get_file_from_path(page) else None


def _source_page(path: str) -> str:
    return f"source/{path}.md"


def _source(path: str, text: str) -> str:
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n````\n"


def _targets(text: str) -> list[str]:
    return [found["target"] for found in LINK.finditer(FENCE.sub("", text)) if found["target"] and ":" not in found["target"]]


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """``change`` applied to what is outside of fenced code."""
    parts: list[str] = []
    end = 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(text[end:])])
