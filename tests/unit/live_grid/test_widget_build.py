from __future__ import annotations

import hashlib
import re

from tests.support.paths import PACKAGE

LIVE_GRID = PACKAGE / "live_grid"
SOURCES = LIVE_GRID / "frontend"
BUILT = LIVE_GRID / "static" / "widget.js"
# Names of XML vocabularies, which nobody asks for over a network.
NAMES = ("http://www.w3.org/",)
KILOBYTES = 150


def test_the_built_widget_matches_its_sources():
    names = ["build.mjs", "package.json", *(f"src/{path.name}" for path in (SOURCES / "src").iterdir())]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\n".encode() + (SOURCES / name).read_bytes())
    said = re.search(r"Sources ([0-9a-f]{16})", BUILT.read_text())
    assert said, BUILT
    assert said[1] == digest.hexdigest()[:16], "make widget"


def test_the_built_widget_makes_no_network_requests():
    text = BUILT.read_text()
    addresses = set(re.findall(r"https?://[\w./-]+", text))
    assert {address for address in addresses if not address.startswith(NAMES)} == set()
    assert not re.search(
        r"\bfetch\(|XMLHttpRequest|importScripts|\bimport\(|WebSocket|@import|sendBeacon", text
    )
    assert not re.search(r"^\s*import\b", text, re.MULTILINE)


def test_the_built_widget_is_small_and_one_module_with_its_licences():
    assert BUILT.stat().st_size < KILOBYTES * 1000
    assert re.search(r"export\s*\{\s*\w+ as default\s*\}", BUILT.read_text())
    licences = (BUILT.parent / "LICENSES.txt").read_text()
    for name in ("preact", "htm", "@dagrejs/dagre", "@dagrejs/graphlib"):
        assert re.search(rf"^{re.escape(name)} \d", licences, re.MULTILINE)


def test_no_registry_is_named_among_the_sources():
    assert '"resolved"' not in (SOURCES / "package-lock.json").read_text()
