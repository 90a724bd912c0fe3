"""Build the documentation site: ``python tools/build_docs.py [folder]``, ``site`` if omitted.

The pages of ``docs/`` link to files outside it as GitHub shows them, for example ``../ARCHITECTURE.md``. The site is
therefore built from a copy: the files of ``OUTSIDE`` become pages there, and the links are turned to these pages.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "temporal_airflow_nb"
CONFIG = "mkdocs.yml"
OUTSIDE = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "deploy/README.md": "deploy.md",
}
"""Files outside ``docs/`` that are pages of the site, each with the name of its page."""

# The start page takes the place of the README.
_PAGES = {**OUTSIDE, "README.md": "index.md"}
# Fenced blocks and code spans, in which nothing is a link.
_CODE = re.compile(r"^(`{3,}).*?^\1|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_DIRECTIVE = re.compile(rf"^::: {PACKAGE}\.(\w+)$", re.MULTILINE)
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>(?P<short>~?)(?P<name>[\w.]+)</code>")


def build(site: Path) -> None:
    """Build the site into a folder, whose content is replaced.

    Raises
    ------
    SystemExit
        A page has a broken link, or the builder warns of something.
    """
    with tempfile.TemporaryDirectory(prefix="temporal-airflow-docs-") as folder:
        copy = Path(folder)
        shutil.copy(ROOT / CONFIG, copy)
        shutil.copytree(ROOT / "docs", copy / "docs")
        # The builder looks for the package beside its configuration.
        (copy / PACKAGE).symlink_to(ROOT / PACKAGE, target_is_directory=True)
        for source, page in pages().items():
            (copy / "docs" / page).write_text(page_text(source, page), encoding="utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
        done = subprocess.run(command, cwd=copy, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(copy / "site", site)
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        if (shown := without_roles(html)) != html:
            path.write_text(shown, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the sources of all pages, as paths in the repository, each with the name of its page."""
    documents = ROOT / "docs"
    inside = (path.relative_to(documents).as_posix() for path in sorted(documents.rglob("*.md")))
    return {**{f"docs/{name}": name for name in inside}, **OUTSIDE}


def page_text(source: str, page: str) -> str:
    """Return a page's text for the site, from its source."""
    text = (ROOT / source).read_text(encoding="utf-8")
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_with_site_links(text[end : code.start()], source, page), code[0]]
        end = code.end()
    whole = "".join([*parts, _with_site_links(text[end:], source, page)])
    return _DIRECTIVE.sub(lambda found: f"::: {_documented(found[1])}", whole)


def without_roles(html: str) -> str:
    """Return HTML in which a role of a docstring is shown as code.

    >>> without_roles("see :meth:<code>~package.Run.wait</code>")
    'see <code>wait</code>'
    """
    return _ROLE.sub(
        lambda role: f"<code>{role['name'].rpartition('.')[2] if role['short'] else role['name']}</code>",
        html,
    )


def _with_site_links(text: str, source: str, page: str) -> str:
    def link(found: re.Match[str]) -> str:
        # The text of a link may be an image, whose address is relative as well.
        label = _LINK.sub(link, found["text"])
        target, anchor, fragment = found["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return f"{found['image']}[{label}]({found['target']})"
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            raise SystemExit(f"{source} links to {target}, which doesn't exist.")
        if path not in _PAGES and not path.startswith("docs/"):
            # The site doesn't have this file: the text stays, without the link.
            return label
        on_site = _PAGES.get(path) or path.removeprefix("docs/")
        relative = posixpath.relpath(on_site, posixpath.dirname(page) or ".")
        return f"{found['image']}[{label}]({relative}{anchor}{fragment})"

    return _LINK.sub(link, text)


def _documented(name: str) -> str:
    """Return the path under which the builder finds the docstring of a public name.

    For an object that is called like a function, that is its class.
    """
    value = getattr(importlib.import_module(PACKAGE), name)
    if inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value):
        return f"{PACKAGE}.{name}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def main() -> None:
    """Build the site into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site", help="replaced by the site")
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
