"""Writes files that only their owner may read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it.

    Processes that read it without a lock find the old text or the new one, never a part.
    """
    # In the same folder: a rename is atomic within one file system only. `mkstemp` makes the file private.
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    # Also after an interrupt: no temporary file may be left.
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
