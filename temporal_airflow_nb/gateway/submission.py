"""Parses, checks and stores DAG files, and creates runs of their DAGs.

Runs in the threads of the gateway's pool, and in those of tasks that trigger a DAG which isn't stored yet. A file is
parsed in its zygote, a process that has the file's imports loaded and is forked for each try. Storing a file is one
transaction; creating a run is another.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from airflow.configuration import conf as airflow_conf
from airflow.dag_processing.bundles.base import unpack_bundle_version
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.enums import Encoding
from airflow.serialization.serialized_objects import BaseSerialization
from pydantic import AwareDatetime, TypeAdapter, ValidationError
from sqlalchemy import func, select, update

from temporal_airflow_nb.checks.preflight import Finding
from temporal_airflow_nb.config.environment import workflow_id
from temporal_airflow_nb.errors import (
    DagFileError,
    DagNotFoundError,
    InvalidConfError,
    InvalidInputError,
    PreflightError,
)
from temporal_airflow_nb.gateway import dag_validation
from temporal_airflow_nb.gateway.backfill import create_backfill
from temporal_airflow_nb.messages.files import FileCheck, Submitted
from temporal_airflow_nb.messages.requests import JsonObject, SubmitFile
from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox
from temporal_airflow_nb.orchestration.run_creation.launch import create_run
from temporal_airflow_nb.stack.services import airflow_config
from temporal_airflow_nb.suggestions import did_you_mean
from temporal_airflow_nb.tasks.attempt import EXECUTOR_SETTINGS, NO_EXECUTOR
from temporal_airflow_nb.tasks.database import reading, transaction
from temporal_airflow_nb.tasks.supervisor import run_dag_processor
from temporal_airflow_nb.tasks.zygotes import DagFile, ZygoteLostError, Zygotes

if TYPE_CHECKING:
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from sqlalchemy.orm import Session

    from temporal_airflow_nb.tasks.client import DatabaseClient

log = structlog.get_logger(__name__)

_AWARE: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
BUNDLES_VARIABLE = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"


class Submissions:
    """Takes DAG files.

    Safe to use from several threads. ``_lock`` protects the list of bundles; a thread that has it may take the writers'
    lock of ``tasks/database.py``, so that no transaction may be open when it is taken.

    Parameters
    ----------
    zygotes, client
        Parse files, and answer what a file asks for while it is parsed.
    home
        The embedded stack's state folder; None if Airflow's own configuration names the bundles.
    """

    def __init__(self, zygotes: Zygotes, client: DatabaseClient, home: Path | None) -> None:
        self.zygotes = zygotes
        self.client = client
        self.home = home
        self._known_bundles = ""
        self._lock = threading.Lock()
        if home is not None:
            self.reload_folders()
            # The threads of tasks call it, before Airflow answers "not found".
            client.find_dag = self.find
        else:
            _store_bundles()

    def check(self, path: str) -> FileCheck:
        """Parse and check a file; nothing is stored."""
        dags, findings = self._checked(self._find(path)[0])
        return {
            "dags": [
                {
                    "dag_id": dag.dag_id,
                    "task_count": len(dag.data["dag"]["tasks"]),
                    "serialized_hash": SerializedDagModel.hash(dag.data),
                }
                for dag in dags
            ],
            "warnings": warnings_of(dags),
            "findings": [finding.to_dict() for finding in findings],
        }

    def submit(self, request: SubmitFile) -> Submitted:
        """Store a file's DAGs, and launch a run of one of them or a backfill."""
        for kind, stored in (("connections", request.connections), ("variables", request.variables)):
            if stored:
                import_stored(kind, stored)
        file, version_data = self._find(request.path)
        dags, findings = self._checked(file)
        dag_ids = [dag.dag_id for dag in dags]
        has_choice = request.launch or request.dag_id is not None
        chosen = _choose(dag_ids, request.dag_id, request.path) if has_choice else dag_ids[0]
        if request.launch:
            findings = [_seen_from(chosen, finding) for finding in findings]
        if wrong := [finding for finding in findings if finding.level == "error"]:
            raise PreflightError.of(wrong, file.path)
        dag = next(dag for dag in dags if dag.dag_id == chosen)
        conf = request.conf
        if request.params:
            _check_names(request.params, [name for name, _ in dag.data["dag"].get("params") or ()], chosen)
            conf = {**(conf or {}), **request.params}
        if request.launch:
            _check_conf(conf or {}, dag)
        # Parsed before anything is stored: a date that can't be used creates nothing.
        span = request.backfill and (
            _moment(request.backfill.start, "backfill.start"),
            _moment(request.backfill.end, "backfill.end"),
        )
        logical_date = request.logical_date and _moment(request.logical_date, "logical_date")
        self._store(file, dags, version_data)
        run_ids = []
        if request.launch and span:
            start, end = span
            run_ids = create_backfill(
                chosen, start=start, end=end, conf=conf, on_worker_lost=request.worker_lost
            )
        elif request.launch:
            run_ids = [
                create_run(
                    chosen,
                    conf=conf,
                    on_worker_lost=request.worker_lost,
                    run_id=request.run_id,
                    logical_date=logical_date or None,
                )
            ]
        first = run_ids[0] if run_ids else None
        return {
            "dag_id": chosen,
            "dag_ids": dag_ids,
            "findings": [finding.to_dict() for finding in findings],
            "run_ids": run_ids,
            "run_id": first,
            "workflow_id": workflow_id(chosen, first) if first else None,
        }

    def find(self, dag_id: str) -> None:
        """
        Store a DAG that a task names, if it isn't stored yet.

        The folders of all submitted files are searched, and files with the DAG's id in their text are parsed. A DAG
        processor would have stored the DAG already.
        """
        with reading() as session:
            if session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id, ~DagModel.is_stale)):
                return
        for folder in airflow_config.bundle_paths(self.home):  # type: ignore[arg-type]
            for path in sorted(folder.glob("*.py")):
                try:
                    if dag_id.encode() not in path.read_bytes():
                        continue
                # An editor's lock file, for example, is a link to nothing.
                except OSError:
                    continue
                try:
                    file, version_data = self._find(str(path))
                    dags = self._parse(file)
                    if any(dag.dag_id == dag_id for dag in dags):
                        self._store(file, dags, version_data)
                        return
                # Another file may define the DAG.
                except DagFileError as error:
                    log.warning("A file that names a DAG can't be used", dag_id=dag_id, error=str(error))

    def _find(self, path: str) -> tuple[DagFile, JsonObject | None]:
        """Return a file in its bundle, and what a versioned bundle stores with a version."""
        found = Path(path)
        _check_source(found)
        resolved = found.resolve()
        if self.home is not None:
            name = airflow_config.register_folder(self.home, resolved.parent)
            self.reload_folders()
            folder = airflow_config.bundle_path(self.home, name).resolve()
            return DagFile(name, None, str(folder), str(resolved)), None
        for bundle in DagBundlesManager().get_all_dag_bundles():
            bundle.initialize()
            if resolved.is_relative_to(bundle.path.resolve()):
                version, data = unpack_bundle_version(bundle.get_current_version(), bundle)
                return DagFile(bundle.name, version, str(bundle.path.resolve()), str(resolved)), data
        raise DagFileError(
            f"{path} isn't in any DAG bundle of this Airflow.",
            hint="Put it in a folder where the cluster's workers find DAGs, and run it by its dag_id.",
            path=path,
        )

    def reload_folders(self) -> None:
        """Make the registered folders bundles of this process and of all that are forked later."""
        # The file is read inside the lock: a thread that has read an older list can't replace a newer one.
        with self._lock:
            bundles = airflow_config.bundle_config_json(self.home)  # type: ignore[arg-type]
            if bundles == self._known_bundles:
                return
            # Airflow reads this variable at each access to the bundles. The zygotes set it in each process they fork.
            os.environ[BUNDLES_VARIABLE] = self.zygotes.env[BUNDLES_VARIABLE] = bundles
            _store_bundles()
            # Last: after an error, the next call tries again.
            self._known_bundles = bundles

    def _checked(self, file: DagFile) -> tuple[list[Any], list[Finding]]:
        began = time.monotonic()
        dags = self._parse(file)
        findings = dag_validation.check(file.path, dags, time.monotonic() - began)
        ignored = [
            Finding("warning", "executor-setting", text, None, "Remove it, or choose workers by `queue`.")
            for text in warnings_of(dags)
        ]
        return dags, [*findings, *ignored]

    def _parse(self, file: DagFile) -> list[Any]:
        rel_path = os.path.relpath(file.path, file.bundle_path)
        # Airflow ends an import that takes too long with an exception, which native code doesn't notice.
        limit = airflow_conf.getfloat("core", "dagbag_import_timeout")
        parse = partial(
            run_dag_processor,
            self.zygotes,
            file,
            rel_path=rel_path,
            client=self.client,
            logger=log.bind(file=file.path),
            callbacks=[],
            timeout=min(limit + 2.0, airflow_conf.getfloat("dag_processor", "dag_file_processor_timeout")),
        )
        try:
            process = parse()
        # Nothing is stored yet, so that a file whose zygote was killed can be parsed again.
        except ZygoteLostError:
            process = parse()
        result = process.parsing_result
        if result is None:
            raise dag_validation.ended_process(file.path, process.exit_code, process.timed_out, limit)
        if result.import_errors:
            raise dag_validation.import_error(file.path, "\n".join(result.import_errors.values()))
        if not result.serialized_dags:
            raise DagFileError(
                f"{file.path} defines no DAG.",
                hint="Call the function decorated with @dag at the end of the file, or use `with DAG(...)`.",
                path=file.path,
                line=None,
            )
        return list(result.serialized_dags)

    def _store(self, file: DagFile, dags: list[Any], version_data: JsonObject | None) -> None:
        rel_path = os.path.relpath(file.path, file.bundle_path)
        errors: dict[tuple[str, str], str] = {}
        dag_ids = [dag.dag_id for dag in dags]
        # One transaction: the DAGs, and the messages to workflows of runs whose DAG has a new version.
        with transaction() as session:
            before = _versions(dag_ids, session)
            update_dag_parsing_results_in_db(
                file.bundle_name,
                file.bundle_version,
                dags,
                errors,
                None,
                set(),
                session,
                files_parsed={(file.bundle_name, rel_path)},
                version_data=version_data,
            )
            # Raised inside the block, so that nothing of the file is stored.
            if errors:
                raise dag_validation.import_error(file.path, "\n".join(errors.values()))
            # As Airflow's DAG processor does: a DAG whose id has changed is stale under its former id.
            session.execute(
                update(DagModel)
                .where(
                    DagModel.bundle_name == file.bundle_name,
                    DagModel.relative_fileloc == rel_path,
                    DagModel.dag_id.not_in(dag_ids),
                )
                .values(is_stale=True)
            )
            if (now := _versions(dag_ids, session)) != before:
                for dag_id, run_id in managed_runs.list_unfinished_runs(session):
                    if dag_id in now and now[dag_id] != before.get(dag_id):
                        outbox.notify(dag_id, run_id, outbox.RESYNC, session)


def _versions(dag_ids: list[str], session: Session) -> dict[str, int]:
    latest = select(DagVersion.dag_id, func.max(DagVersion.version_number)).group_by(DagVersion.dag_id)
    return dict(session.execute(latest.where(DagVersion.dag_id.in_(dag_ids))).tuples().all())


def _seen_from(dag_id: str, finding: Finding) -> Finding:
    """Return a finding for a run of one DAG: an error in another DAG of the file is a warning."""
    if finding.dag_id in (None, dag_id):
        return finding
    return replace(finding, level="warning")


def _store_bundles() -> None:
    """Store the configured bundles in the database, where rows of DAGs refer to them."""
    # Others stay active: they may belong to Airflow processes with another list of bundles.
    with transaction() as session:
        DagBundlesManager().sync_bundles_to_db(deactivate_missing=False, session=session)


def warnings_of(dags: list[Any]) -> list[str]:
    """Return warnings about settings of tasks that have no effect here."""
    found = []
    for dag in dags:
        tasks = [task[Encoding.VAR] for task in dag.data["dag"]["tasks"]]
        for setting in EXECUTOR_SETTINGS:
            named = [task["task_id"] for task in tasks if (task.get("partial_kwargs") or task).get(setting)]
            if named:
                found.append(
                    f"{setting} of {', '.join(map(repr, named))} in DAG {dag.dag_id!r} is ignored: {NO_EXECUTOR}"
                )
    return found


def _check_source(path: Path) -> None:
    if not path.exists():
        similar = sorted(p.name for p in path.parent.glob("*.py"))[:5] if path.parent.is_dir() else []
        hint = f"{path.parent} has: {', '.join(similar)}." if similar else "Check the path."
        raise DagFileError(f"There is no file {path}.", hint=hint, path=str(path), line=None)
    if path.is_dir():
        raise DagFileError(f"{path} is a folder.", hint="Name one DAG file.", path=str(path), line=None)
    if path.suffix not in (".py", ".zip"):
        raise DagFileError(
            f"{path} isn't a Python file.", hint="A DAG file's name ends in .py.", path=str(path), line=None
        )
    if path.suffix == ".zip":
        return
    try:
        # Not ast.parse: in Python 3.11 it fails now and then if several threads use it.
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"{path}, line {error.lineno}" if error.lineno else str(path)
        raise DagFileError(
            f"{place}: {error.msg}.",
            hint=(error.text or "").strip() or "Correct the syntax.",
            path=str(path),
            line=error.lineno,
        ) from None
    except (ValueError, OSError) as error:
        raise DagFileError(
            f"{path} can't be read: {error}.", hint="Check the file.", path=str(path), line=None
        ) from None


def _choose(dag_ids: list[str], dag_id: str | None, path: str) -> str:
    if dag_id is None and len(dag_ids) == 1:
        return dag_ids[0]
    known = ", ".join(sorted(dag_ids))
    if dag_id is None:
        raise DagNotFoundError(
            f"{path} defines {len(dag_ids)} DAGs: {known}.",
            hint=f"Choose one: --dag-id {sorted(dag_ids)[0]}",
            dag_ids=sorted(dag_ids),
        )
    if dag_id not in dag_ids:
        raise DagNotFoundError(
            f"{path} defines no DAG {dag_id!r}.",
            hint=f"It defines: {known}.",
            dag_id=dag_id,
            dag_ids=sorted(dag_ids),
        )
    return dag_id


def _check_names(params: Iterable[str], known: list[str], dag_id: str) -> None:
    """Refuse names that the DAG's params don't have; Airflow would ignore them."""
    for name in params:
        if name in known:
            continue
        there = f"It has: {', '.join(known)}." if known else "It has none: @dag(params={…}) declares them."
        raise InvalidConfError(
            f"DAG {dag_id!r} has no param {name!r}.",
            hint=did_you_mean(name, known, there),
            dag_id=dag_id,
            name=name,
        )


def _check_conf(conf: JsonObject, dag: LazyDeserializedDAG) -> None:
    """Refuse a conf that doesn't fit the DAG's params, before anything is stored."""
    # Private: the public way deserialises the whole DAG.
    params = BaseSerialization._deserialize_params_dict(dag.data["dag"].get("params") or [])
    try:
        params.deep_merge(conf).validate()
    except ValueError as error:
        raise InvalidConfError.of_params(dag.dag_id, error) from None


def _moment(text: str, name: str) -> datetime:
    try:
        return _AWARE.validate_python(text)
    except ValidationError as error:
        raise InvalidInputError(
            f"`submit_file` can't take {text!r} as {name}: {error.errors()[0]['msg']}.",
            hint="Give a date and a time with a time zone, as 2026-01-31T00:00:00+00:00.",
        ) from None


def import_stored(kind: str, path: str) -> None:
    """Import a file as ``airflow connections import`` and ``airflow variables import`` do."""
    from airflow.cli.commands.connection_command import _import_helper as import_connections
    from airflow.models import Variable
    from airflow.secrets.local_filesystem import load_variables

    if not Path(path).is_file():
        raise InvalidInputError(
            f"There is no file {path}.", hint=f"Name a JSON, YAML or env file of {kind}.", path=path
        )
    # Private: the function behind the command. It commits each connection by itself.
    # Airflow's commands raise SystemExit for a wrong file. Parsers of the formats raise errors of many classes, and all
    # of them are about the user's file.
    try:
        if kind == "connections":
            import_connections(path, overwrite=True)
        else:
            for key, value in load_variables(path).items():
                Variable.set(key, value if isinstance(value, str) else json.dumps(value))
    except (SystemExit, Exception) as error:
        raise InvalidInputError(
            f"{path} can't be imported as {kind}: {error}.",
            hint="See Airflow's documentation of the format.",
            path=path,
        ) from None
