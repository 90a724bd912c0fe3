from __future__ import annotations

import os
import shutil

import pytest

from tests.browser.jupyter_lab import CHROMIUM_FLAGS, jupyter_lab


def pytest_addoption(parser):
    parser.addoption("--update-screenshots", action="store_true", help="renew the pictures in docs/images")


@pytest.fixture(scope="session")
def chromium():
    """A real browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        assert "CI" not in os.environ, "there is no chromium on the PATH, and CI skips no browser test"
        pytest.skip("there is no chromium on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(stack, tmp_path_factory):
    """JupyterLab, its kernels using the stack that tests share."""
    with jupyter_lab(tmp_path_factory.mktemp("lab"), stack.home) as lab:
        yield lab
