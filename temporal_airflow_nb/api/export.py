"""A cell as a plain DAG file, at a path of the user's."""

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
    """Refuse to replace a file that isn't as a cell has left it.

    Raises
    ------
    InvalidInputError
        Somebody else has written it, or has changed it since; or it can't be written there.
    """
    if path.suffix != ".py":
        raise InvalidInputError(
            f"{path} isn't the name of a Python file.", hint="It ends in .py.", path=str(path)
        )
    if not path.parent.is_dir():
        raise InvalidInputError(f"There is no folder {path.parent}.", hint="Create it first.", path=str(path))
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            there = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise InvalidInputError(
            f"{path} can't be written: {error.strerror}.", hint="Choose another path.", path=str(path)
        ) from None
    if force or there is None:
        return
    if there != text.encode() and _known().get(str(path.resolve())) != _hash(there):
        raise InvalidInputError(
            f"{path} isn't as a cell has left it: it would be overwritten.",
            hint="Choose another path, or overwrite it with --force (`force=True`).",
            path=str(path),
        )


def write(path: Path, text: str) -> None:
    """Write the file in one step, and remember what it holds."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, path.stat().st_mode if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    home = home_path()
    state_folder.prepare_home(home)
    record = {**_known(), str(path.resolve()): _hash(text.encode())}
    write_private(home / _RECORD, json.dumps(record, indent=2) + "\n")


def _known() -> dict[str, str]:
    try:
        return dict(json.loads((home_path() / _RECORD).read_text()))
    except (OSError, ValueError):
        return {}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
