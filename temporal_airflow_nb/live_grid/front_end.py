"""Recognize the front end of this kernel by the environment variables that it sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import Any


class FrontEnd(Enum):
    """The ways in which front ends show a live grid in the output of a cell."""

    MOUNTING = "the output is HTML, beside which the widget mounts itself: JupyterLab, Notebook 7"
    BUNDLE = "the output is a widget until the run has ended, then HTML: VS Code, Colab"
    HTML = "the output is HTML, replaced in place: nbclient, papermill, nbconvert"
    TEXT = "an output can't be replaced: IPython in a terminal"
    NONE = "there is no output: the caller places the widget itself"


_BUNDLES = ("VSCODE_PID", "VSCODE_CWD", "COLAB_RELEASE_TAG")
# VS Code adds this to the name of a session when it opens a notebook on a remote Jupyter server.
_REMOTE = "-jvsc-"


def front_end(shell: Any, environ: Mapping[str, str] = os.environ) -> FrontEnd:
    """Return how the front end of a shell shows live grids.

    >>> front_end(None, {})
    <FrontEnd.TEXT: "an output can't be replaced: IPython in a terminal">
    """
    if getattr(shell, "kernel", None) is None:
        return FrontEnd.TEXT
    session = environ.get("JPY_SESSION_NAME", "")
    if _REMOTE in session or any(environ.get(name) for name in _BUNDLES):
        return FrontEnd.BUNDLE
    return FrontEnd.MOUNTING if session else FrontEnd.HTML
