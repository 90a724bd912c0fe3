"""From a DAG file to a run: parse, check, store, launch. Runs in the gateway, beside the worker."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from airflow.dag_processing.bundles.base import unpack_bundle_version
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.serialization.enums import Encoding
from airflow.serialization.serialized_objects import BaseSerialization
from sqlalchemy import func, select, update

from temporal_airflow_nb.checks.preflight import Finding
from temporal_airflow_nb.errors import (
    DagFileError,
    DagNotFoundError,
    InvalidConfError,
    InvalidInputError,
    PreflightError,
)
from temporal_airflow_nb.gateway import dag_validation
from temporal_airflow_nb.gateway.backfill import create_backfill
from temporal_airflow_nb.orchestration.outbox import managed_runs, outbox
from temporal_airflow_nb.orchestration.run_creation.launch import create_run
from temporal_airflow_nb.stack.services import airflow_config
from temporal_airflow_nb.suggestions import did_you_mean
from temporal_airflow_nb.tasks.attempt import EXECUTOR_SETTINGS, NO_EXECUTOR
from temporal_airflow_nb.tasks.database import reading, transaction
from temporal_airflow_nb.tasks.supervisor import run_dag_processor
from temporal_airflow_nb.tasks.zygotes import DagFile, Zygotes

if TYPE_CHECKING:
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from sqlalchemy.orm import Session

    from temporal_airflow_nb.tasks.client import DatabaseClient

log = structlog.get_logger(__name__)

BUNDLES_VARIABLE = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"


@dataclass(frozen=True)
class Submitted:
    """What became of a file: the DAG that was chosen, all that are stored, what is said of them, and the new runs."""

    dag_id: str
    dag_ids: list[str]
    findings: list[Finding]
    run_ids: list[str] = field(default_factory=list)


class Submissions:
    """Takes DAG files; safe in threads.

    Parameters
    ----------
    zygotes, client
        Where files are parsed, and what answers them while they are.
    home
        The embedded stack's state folder; None where Airflow's own configuration names the bundles.
    """

    def __init__(self, zygotes: Zygotes, client: DatabaseClient, home: Path | None) -> None:
        self.zygotes = zygotes
        self.client = client
        self.home = home
        self._known_bundles = ""
        if home is not None:
            self.learn_folders()
            client.find_dag = self.find
        else:
            _store_bundles()

    def check(self, path: str) -> tuple[list[Any], list[Finding]]:
        """Parse a file; return its serialized DAGs, and what is to be said of them. Nothing is stored."""
        return self._checked(self._find(path)[0])

    def submit(
        self,
        path: str,
        *,
        dag_id: str | None = None,
        launch: bool = True,
        backfill: tuple[datetime, datetime] | None = None,
        conf: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        on_worker_lost: str | None = None,
        **run: Any,
    ) -> Submitted:
        """
        Store a file's DAGs and launch a run of one, or one for each date of a ``backfill``.

        Parameters
        ----------
        path, dag_id
            Which file, and which of its DAGs.
        launch
            Whether to run it, once it is stored.
        backfill
            The first date and the last.
        conf
            The conf of the runs.
        params
            Values for the DAG's params, which have these names; they go before those in ``conf``.
        on_worker_lost, **run
            As for :func:`create_run`.
        """
        file, version_data = self._find(path)
        # The first task needs the file parsed in its zygote: that happens while the DAG is checked and stored.
        threading.Thread(target=self.zygotes.warm, args=(file,), daemon=True).start()
        dags, findings = self._checked(file)
        dag_ids = [dag.dag_id for dag in dags]
        chosen = _choose(dag_ids, dag_id, path) if launch or dag_id is not None else dag_ids[0]
        if launch:
            findings = [_seen_from(chosen, finding) for finding in findings]
        if wrong := [finding for finding in findings if finding.level == "error"]:
            raise PreflightError.of(wrong, file.path)
        if params:
            dag = next(dag for dag in dags if dag.dag_id == chosen)
            _check_names(params, [name for name, _ in dag.data["dag"].get("params") or ()], chosen)
            conf = {**(conf or {}), **params}
        if launch:
            _check_conf(conf or {}, next(dag for dag in dags if dag.dag_id == chosen))
        self._store(file, dags, version_data)
        if not launch:
            return Submitted(chosen, dag_ids, findings)
        if backfill is not None:
            start, end = backfill
            run_ids = create_backfill(chosen, start=start, end=end, conf=conf, on_worker_lost=on_worker_lost)
        else:
            run_ids = [create_run(chosen, conf=conf, on_worker_lost=on_worker_lost, **run)]
        return Submitted(chosen, dag_ids, findings, run_ids)

    def find(self, dag_id: str) -> None:
        """
        Look for a DAG that isn't stored, and that a task names, in the files beside those that were submitted.

        Where a DAG processor runs, it would be stored already. Only files with the DAG's id in their text are parsed.
        """
        with reading() as session:
            if session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id, ~DagModel.is_stale)):
                return
        for folder in airflow_config.bundle_paths(self.home):  # type: ignore[arg-type]
            for path in sorted(folder.glob("*.py")):
                if dag_id.encode() not in path.read_bytes():
                    continue
                try:
                    file, version_data = self._find(str(path))
                    dags = self._parse(file)
                    if any(dag.dag_id == dag_id for dag in dags):
                        self._store(file, dags, version_data)
                        return
                except DagFileError as error:
                    log.warning("A file that names a DAG can't be used", dag_id=dag_id, error=str(error))

    def _find(self, path: str) -> tuple[DagFile, dict[str, Any] | None]:
        """Return a file in its bundle, and what a versioned bundle wants stored beside the version."""
        found = Path(path)
        _check_source(found)
        resolved = found.resolve()
        if self.home is not None:
            name = airflow_config.register_folder(self.home, resolved.parent)
            self.learn_folders()
            folder = airflow_config.bundle_path(self.home, name).resolve()
            return DagFile(name, None, str(folder), str(resolved)), None
        for bundle in DagBundlesManager().get_all_dag_bundles():
            bundle.initialize()
            if resolved.is_relative_to(bundle.path.resolve()):
                version, data = unpack_bundle_version(bundle.get_current_version(), bundle)
                return DagFile(bundle.name, version, str(bundle.path.resolve()), str(resolved)), data
        raise DagFileError(
            f"{path} isn't in any DAG bundle of this Airflow",
            hint="Put it where the cluster's workers find it, and run it by its dag_id.",
            path=path,
        )

    def learn_folders(self) -> None:
        """Have every process that is forked from now on, and this one, know the folders registered so far."""
        bundles = airflow_config.bundle_config_json(self.home)  # type: ignore[arg-type]
        if bundles == self._known_bundles:
            return
        os.environ[BUNDLES_VARIABLE] = self.zygotes.env[BUNDLES_VARIABLE] = bundles
        _store_bundles()
        self._known_bundles = bundles

    def _checked(self, file: DagFile) -> tuple[list[Any], list[Finding]]:
        begun = time.monotonic()
        dags = self._parse(file)
        findings = dag_validation.check(file.path, dags, time.monotonic() - begun)
        ignored = [
            Finding("warning", "executor-setting", text, None, "Take it away, or choose workers by `queue`.")
            for text in warnings_of(dags)
        ]
        return dags, [*findings, *ignored]

    def _parse(self, file: DagFile) -> list[Any]:
        rel_path = os.path.relpath(file.path, file.bundle_path)
        result = run_dag_processor(
            self.zygotes,
            file,
            rel_path=rel_path,
            client=self.client,
            logger=log.bind(file=file.path),
            callbacks=[],
            shared=False,
        ).parsing_result
        if result is None:
            raise DagFileError(
                f"{file.path} ended the process that was parsing it",
                hint="Look for sys.exit() or os._exit() at its top level.",
                path=file.path,
                line=None,
            )
        if result.import_errors:
            raise dag_validation.import_error(file.path, "\n".join(result.import_errors.values()))
        if not result.serialized_dags:
            raise DagFileError(
                f"{file.path} defines no DAG",
                hint="Call the function decorated with @dag at the end of the file, or use `with DAG(...)`.",
                path=file.path,
                line=None,
            )
        return result.serialized_dags

    def _store(self, file: DagFile, dags: list[Any], version_data: dict[str, Any] | None) -> None:
        rel_path = os.path.relpath(file.path, file.bundle_path)
        errors: dict[tuple[str, str], str] = {}
        dag_ids = [dag.dag_id for dag in dags]
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
            if errors:
                raise dag_validation.import_error(file.path, "\n".join(errors.values()))
            # A DAG that has another id now is gone under the former, as Airflow's DAG processor has it.
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
    """Return a finding as a run of one of the file's DAGs is concerned: what is wrong with another doesn't stop it."""
    if finding.dag_id in (None, dag_id):
        return finding
    return replace(finding, level="warning")


def _store_bundles() -> None:
    """Have the configured bundles in the database, where their DAGs refer to them."""
    with transaction() as session:
        DagBundlesManager().sync_bundles_to_db(deactivate_missing=False, session=session)


def warnings_of(dags: list[Any]) -> list[str]:
    """Return what the user should know of DAGs that can be run all the same."""
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
        hint = f"In {path.parent} there are: {', '.join(similar)}." if similar else "Check the path."
        raise DagFileError(f"there is no file {path}", hint=hint, path=str(path), line=None)
    if path.is_dir():
        raise DagFileError(f"{path} is a folder", hint="Name one DAG file.", path=str(path), line=None)
    if path.suffix not in (".py", ".zip"):
        raise DagFileError(
            f"{path} isn't a Python file", hint="A DAG file's name ends in .py.", path=str(path), line=None
        )
    if path.suffix == ".zip":
        return
    try:
        # Not ast.parse: in Python 3.11 it fails now and then where several threads use it.
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"{path}, line {error.lineno}" if error.lineno else str(path)
        raise DagFileError(
            f"{place}: {error.msg}",
            hint=(error.text or "").strip() or "Correct the syntax.",
            path=str(path),
            line=error.lineno,
        ) from None
    except (ValueError, OSError) as error:
        raise DagFileError(
            f"{path} can't be read: {error}", hint="Check the file.", path=str(path), line=None
        ) from None


def _choose(dag_ids: list[str], dag_id: str | None, path: str) -> str:
    if dag_id is None and len(dag_ids) == 1:
        return dag_ids[0]
    known = ", ".join(sorted(dag_ids))
    if dag_id is None:
        raise DagNotFoundError(
            f"{path} defines {len(dag_ids)} DAGs: {known}",
            hint=f"Choose one: --dag-id {sorted(dag_ids)[0]}",
            dag_ids=sorted(dag_ids),
        )
    if dag_id not in dag_ids:
        raise DagNotFoundError(
            f"{path} defines no DAG {dag_id!r}",
            hint=f"It defines: {known}.",
            dag_id=dag_id,
            dag_ids=sorted(dag_ids),
        )
    return dag_id


def _check_names(params: Iterable[str], known: list[str], dag_id: str) -> None:
    """Refuse names that aren't those of the DAG's params; Airflow would pass them by."""
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


def _check_conf(conf: dict[str, Any], dag: LazyDeserializedDAG) -> None:
    """Refuse what Airflow would refuse when it makes the run: now, before anything is stored."""
    params = BaseSerialization._deserialize_params_dict(dag.data["dag"].get("params") or [])
    try:
        params.deep_merge(conf).validate()
    except ValueError as error:
        raise InvalidConfError.of_params(dag.dag_id, error) from None


def import_stored(kind: str, path: str) -> None:
    """Import a file of connections or variables, as ``airflow connections import`` and its sibling do."""
    from airflow.cli.commands.connection_command import _import_helper as import_connections
    from airflow.models import Variable
    from airflow.secrets.local_filesystem import load_variables

    if not Path(path).is_file():
        raise InvalidInputError(
            f"there is no file {path}", hint=f"Name a JSON, YAML or env file of {kind}.", path=path
        )
    try:
        if kind == "connections":
            import_connections(path, overwrite=True)
        else:
            for key, value in load_variables(path).items():
                Variable.set(key, value if isinstance(value, str) else json.dumps(value))
    except (SystemExit, Exception) as error:
        raise InvalidInputError(
            f"{path} can't be imported as {kind}: {error}",
            hint="See Airflow's documentation of the format.",
            path=path,
        ) from None
