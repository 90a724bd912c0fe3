"""Tests that the documentation site builds without a warning, and that its links have targets."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import temporal_airflow_nb

ROOT = Path(__file__).parent.parent.parent


class Links(HTMLParser):
    """Collects the links of a page, the files that it loads, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag == "link" and values.get("rel") != "canonical" and "href" in values:
            self.loaded.add(values["href"])
        elif tag in ("img", "script", "iframe", "source") and "src" in values:
            self.loaded.add(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "tools/build_docs.py", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Links]:
    found = {}
    for path in site.rglob("*.html"):
        found[path] = Links()
        found[path].feed(path.read_text(encoding="utf-8"))
    return found


def test_every_document_is_a_page(site):
    for path in (ROOT / "docs").rglob("*.md"):
        assert (site / path.relative_to(ROOT / "docs").with_suffix(".html")).exists(), path
    for name in (
        "architecture",
        "benchmarks",
        "changelog",
        "contributing",
        "deploy",
        "releasing",
        "security",
    ):
        assert (site / f"{name}.html").exists(), name


def test_the_targets_of_links_and_anchors_exist(site, pages):
    broken = []
    for page, parsed in pages.items():
        if page.name == "404.html":
            continue  # its links are relative to the root of the server
        for link in parsed.links | parsed.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target /= "index.html"
            anchors = pages[target].anchors if target in pages else None
            if not target.exists() or (
                parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors
            ):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


def test_a_page_loads_nothing_from_other_servers(site, pages):
    loaded = {link for parsed in pages.values() for link in parsed.loaded}
    assert not {link for link in loaded if urlsplit(link).netloc}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not any("url(http" in style or "@import" in style for style in styles)


def test_every_public_name_is_in_the_reference(site, pages):
    anchors = {
        name for path, page in pages.items() if path.parent.name == "reference" for name in page.anchors
    }
    listed = (ROOT / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    for name in temporal_airflow_nb.__all__:
        assert f"[`ta.{name}`]" in listed, name
        assert {name, f"{temporal_airflow_nb.__name__}.{name}"} & anchors, name


def test_the_reference_shows_how_runs_is_called(site):
    page = (site / "reference" / "frames.html").read_text(encoding="utf-8")
    assert "__call__" in page


def test_no_role_of_a_docstring_is_left(site):
    for path in (site / "reference").glob("*.html"):
        assert ":<code>" not in path.read_text(encoding="utf-8"), path.name
