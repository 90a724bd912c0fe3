"""The Airflow configuration of an embedded stack, and the folders of its DAG files.

Imports no Airflow: the stack manager, the worker, notebooks and the command line all use it. Several of these processes
may register folders at the same time. They change ``bundles.json``, ``watched.json`` and ``airflow.cfg`` under the file
lock ``bundles.lock`` only, and replace each file in one step, so that readers need no lock.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

from temporal_airflow_nb.config.environment import NOTEBOOK_BUNDLE
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.private_files import write_private
from temporal_airflow_nb.stack.services import database
from temporal_airflow_nb.stack.state_folder import acquire_lock

AIRFLOW_FOLDER = "airflow"
_KEYS_FILE = "keys.json"
_BUNDLES_FILE = "bundles.json"
_WATCHED_FILE = "watched.json"
_BUNDLES_LOCK = "bundles.lock"
_LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"

# The module that defines this package's tables. Its hash is part of the recorded version: after it has changed, the
# other services wait until the worker has migrated the database.
_TABLES_MODULE = Path(__file__).parents[2] / "orchestration" / "outbox" / "tables.py"


def airflow_home(home: Path) -> Path:
    """Return ``AIRFLOW_HOME`` of the stack."""
    return home / AIRFLOW_FOLDER


def config_path(home: Path) -> Path:
    """Return ``AIRFLOW_CONFIG`` of the stack."""
    return airflow_home(home) / "airflow.cfg"


def is_migrated(home: Path, version: str) -> bool:
    """Return whether the worker has migrated the database to this Airflow and this package."""
    path = _migration_file(home)
    return path.exists() and path.read_text() == _database_version(version)


def record_migration(home: Path, version: str) -> None:
    """Record that the metadata database is migrated to this version."""
    _migration_file(home).write_text(_database_version(version))


def forget_migration(home: Path) -> None:
    """Record that the metadata database is new and not migrated."""
    _migration_file(home).unlink(missing_ok=True)


def _database_version(version: str) -> str:
    return f"{version}, ours {hashlib.sha256(_TABLES_MODULE.read_bytes()).hexdigest()[:16]}"


def _migration_file(home: Path) -> Path:
    return airflow_home(home) / "migrated"


def notebook_folder(home: Path) -> Path:
    """Return the folder of the DAG files made from notebook cells."""
    return home / NOTEBOOK_BUNDLE


def prepare(home: Path) -> None:
    """Create the folders and write ``airflow.cfg``."""
    for folder in (airflow_home(home), notebook_folder(home)):
        folder.mkdir(mode=0o700, exist_ok=True)
    with _bundles_lock(home):
        _write_config(home)


def register_folder(home: Path, folder: str | os.PathLike[str]) -> str:
    """Make a folder one of the stack's DAG bundles and return the bundle's name.

    Symbolic links are resolved. The same folder always gets the same name, and a folder inside a watched folder belongs
    to that folder's bundle. A process that has read ``airflow.cfg`` before gets the new list from
    :func:`bundle_config_json`.

    Raises
    ------
    InvalidInputError
        It isn't a folder.

    Examples
    --------
    >>> register_folder(Path(".temporal_airflow"), "dags/etl")   # doctest: +SKIP
    'etl-3f2a91'
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise InvalidInputError(
            f"{path} is not a folder.", hint="Name a folder with DAG files.", path=str(path)
        )
    if path == notebook_folder(home).resolve():
        return NOTEBOOK_BUNDLE
    airflow_home(home).mkdir(mode=0o700, parents=True, exist_ok=True)
    with _bundles_lock(home):
        folders = _read_folders(home)
        by_path = {known: name for name, known in folders.items()}
        watched = {folders[name] for name in _read_watched(home) if name in folders}
        for candidate in [str(path), *(str(parent) for parent in path.parents if str(parent) in watched)]:
            if candidate in by_path:
                return by_path[candidate]
        name = _bundle_name(path, taken=folders)
        write_private(home / _BUNDLES_FILE, json.dumps({**folders, name: str(path)}, indent=2) + "\n")
        _write_config(home)
    return name


def watch_folder(home: Path, folder: str | os.PathLike[str]) -> str:
    """Register a folder, and have Airflow's DAG processor search it.

    The folder of a file that was run is registered but not watched: its other files may not be DAG files, and the user
    hasn't asked to import them.
    """
    # `register_folder` takes the same lock, which isn't reentrant: it is called outside the block.
    name = register_folder(home, folder)
    with _bundles_lock(home):
        if name not in (watched := _read_watched(home)):
            write_private(home / _WATCHED_FILE, json.dumps([*watched, name]) + "\n")
    return name


def watched_bundles(home: Path) -> list[str]:
    """Return the names of the bundles that Airflow's DAG processor searches."""
    return [NOTEBOOK_BUNDLE, *(name for name in _read_watched(home) if name != NOTEBOOK_BUNDLE)]


def bundle_path(home: Path, name: str) -> Path:
    """Return the folder of a bundle."""
    if name == NOTEBOOK_BUNDLE:
        return notebook_folder(home)
    folders = _read_folders(home)
    if name not in folders:
        raise InvalidInputError(
            f"The stack has no DAG bundle {name!r}.", hint=f"It has: {', '.join(folders)}."
        )
    return Path(folders[name])


def bundle_paths(home: Path) -> list[Path]:
    """Return the folders of all bundles."""
    return [notebook_folder(home), *map(Path, _read_folders(home).values())]


def bundle_config_json(home: Path) -> str:
    """Return the value of ``[dag_processor] dag_bundle_config_list``: the notebook's bundle and the registered ones."""
    folders = {NOTEBOOK_BUNDLE: str(notebook_folder(home)), **_read_folders(home)}
    return json.dumps(
        [
            {"name": name, "classpath": _LOCAL_BUNDLE, "kwargs": {"path": path}}
            for name, path in folders.items()
        ]
    )


def drop_conflicting_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables that would override the stack's own settings.

    For example, a shell that is set up for a production Airflow has ``AIRFLOW__DATABASE__SQL_ALCHEMY_CONN`` set.
    """
    # Only the names of the settings matter here, so that any folder will do.
    own_settings = {
        f"AIRFLOW__{section}__{key}".upper() for section, keys in _settings(Path("/")).items() for key in keys
    }

    def conflicts(name: str) -> bool:
        # Airflow also reads NAME_CMD and NAME_SECRET.
        setting = re.sub(r"_(CMD|SECRET)$", "", name)
        return name in own_settings or setting in own_settings or name.startswith("AIRFLOW__DATABASE__")

    return {name: value for name, value in environ.items() if not conflicts(name)}


def _bundles_lock(home: Path) -> Any:
    return acquire_lock(home / _BUNDLES_LOCK, timeout=10, waiting_for="Another process")


def _read_folders(home: Path) -> dict[str, str]:
    return dict(_read_json(home / _BUNDLES_FILE) or {})


def _read_watched(home: Path) -> list[str]:
    return list(_read_json(home / _WATCHED_FILE) or [])


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _bundle_name(path: Path, taken: Mapping[str, str]) -> str:
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", path.name).strip("-").lower()[:40] or "dags"
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    return next(name for n in range(6, 64) if (name := f"{slug}-{digest[:n]}") not in taken)


def _load_keys(home: Path) -> dict[str, str]:
    # The keys stay the same at every start: the Fernet key decrypts the connections in the database. If the file is
    # damaged, connections that the user has stored must be entered again.
    path = airflow_home(home) / _KEYS_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        keys = {
            "fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "jwt_secret": secrets.token_urlsafe(32),
            "secret_key": secrets.token_urlsafe(32),
        }
        write_private(path, json.dumps(keys))
        return keys


def _settings(
    home: Path, keys: Mapping[str, str] | None = None, bundles: str = "[]"
) -> dict[str, dict[str, str]]:
    keys = keys or dict.fromkeys(("fernet_key", "jwt_secret", "secret_key"), "")
    folder = airflow_home(home)
    return {
        "core": {
            "dags_folder": str(notebook_folder(home)),
            "plugins_folder": str(folder / "plugins"),
            "load_examples": "False",
            # A DAG of a file that was run has to be active for tasks that trigger it, and for its assets. Without a
            # scheduler no run starts by a schedule.
            "dags_are_paused_at_creation": "False",
            # A file that a user runs is parsed whether or not it mentions Airflow.
            "dag_discovery_safe_mode": "False",
            "executor": "LocalExecutor",
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            # No login: the API server listens on loopback only.
            "simple_auth_manager_all_admins": "True",
            "simple_auth_manager_passwords_file": str(folder / "passwords.json"),
            "fernet_key": keys["fernet_key"],
        },
        "database": {"sql_alchemy_conn": database.url(home)},
        "logging": {
            "base_log_folder": str(folder / "logs"),
            "dag_processor_child_process_log_directory": str(folder / "logs" / "dag_processor"),
            "remote_logging": "False",
        },
        "api": {"secret_key": keys["secret_key"], "host": "127.0.0.1"},
        "api_auth": {"jwt_secret": keys["jwt_secret"]},
        "dag_processor": {
            "dag_bundle_config_list": bundles,
            "dag_bundle_storage_path": str(folder / "bundles"),
        },
    }


def _write_config(home: Path) -> None:
    parser = RawConfigParser()
    # Airflow interpolates values with `%`: a percent sign has to be doubled.
    parser.read_dict(
        {
            section: {key: value.replace("%", "%%") for key, value in settings.items()}
            for section, settings in _settings(home, _load_keys(home), bundle_config_json(home)).items()
        }
    )
    text = io.StringIO()
    text.write(
        "# Written at each start of the stack: set options with AIRFLOW__SECTION__KEY variables instead.\n"
    )
    parser.write(text)
    path = config_path(home)
    if not path.exists() or path.read_text(encoding="utf-8") != text.getvalue():
        write_private(path, text.getvalue())
