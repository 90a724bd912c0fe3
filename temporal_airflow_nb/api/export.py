"""Write a cell as a plain DAG file to a path of the user.

The state folder records a hash of each written file, so that edits of the user aren't overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from temporal_airflow_nb.config.environment import home_path
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.private_files import write_private
from temporal_airflow_nb.stack import state_folder

_RECORD = "written.json"


def check(path: Path, text: str, *, force: bool = False) -> None:
    """Check that a file can be written without losing edits of the user.

    Raises
    ------
    InvalidInputError
        The file wasn't written from a cell, was edited since, or can't be written.
    """
    if path.suffix != ".py":
        raise InvalidInputError(
            f"{path} isn't the name of a Python file.", hint="Use a name that ends in `.py`.", path=str(path)
        )
    if not path.parent.is_dir():
        raise InvalidInputError(f"There is no folder {path.parent}.", hint="Create it first.", path=str(path))
    try:
        # Fails now, before the run is started, if the folder isn't writable.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            present = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise InvalidInputError(
            f"{path} can't be written: {error.strerror}.", hint="Choose another path.", path=str(path)
        ) from None
    if force or present is None:
        return
    if present != text.encode() and _read_record().get(str(path.resolve())) != _hash(present):
        raise InvalidInputError(
            f"{path} was edited since a cell wrote it, or wasn't written by a cell.",
            hint="Choose another path, or overwrite the file with `--force` (`force=True`).",
            path=str(path),
        )


def write(path: Path, text: str) -> None:
    """Write the file atomically and record its hash."""
    # The temporary name doesn't end in `.py`: a DAG processor that searches the folder must not parse half of a file.
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        # `mkstemp` makes a file that only its owner may read. Airflow may run as another user.
        os.chmod(temporary, path.stat().st_mode if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    # Also after an interrupt: no temporary file may be left.
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    home = home_path()
    state_folder.prepare_home(home)
    record = {**_read_record(), str(path.resolve()): _hash(text.encode())}
    write_private(home / _RECORD, json.dumps(record, indent=2) + "\n")


def _read_record() -> dict[str, str]:
    try:
        return dict(json.loads((home_path() / _RECORD).read_text()))
    # Without a record, every existing file counts as edited, and `force` replaces it.
    except (OSError, ValueError):
        return {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _umask() -> int:
    # The umask can only be read by setting it. Files that other threads create between the two calls are private.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
