"""Imports everything a task process needs, once, before the first fork.

Forks share the imported modules' memory with their zygote until they write to it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

# The modules that a task of the standard provider imports after `import airflow`. They were found by running a task
# under `python -X importtime` in a fork.
MODULES = (
    "airflow.settings",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.timeout",
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.processor",
    "airflow.serialization.serialized_objects",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.sensors.python",
    "airflow.executors.workloads",
    "airflow.utils.log.file_task_handler",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.serde",
    "airflow.sdk.log",
    "airflow.api_fastapi.execution_api.routes.task_instances",
    "airflow.api_fastapi.execution_api.routes.xcoms",
    "setproctitle",
    "encodings.idna",
    "jinja2.ext",
    "jinja2.sandbox",
    "email.mime.multipart",
)


def defer_iri_grammar() -> None:
    """
    Load ``rfc3987_syntax`` when an IRI is first checked, not when ``jsonschema`` is imported.

    The module takes 1.9 s to build its grammar; ``jsonschema`` imports it only to register a checker for the format
    ``iri``.
    """
    name = "rfc3987_syntax"
    if name in sys.modules:
        return
    placeholder = types.ModuleType(name)

    def is_valid_syntax(*args: object, **kwargs: object) -> bool:
        sys.modules.pop(name, None)
        return bool(importlib.import_module(name).is_valid_syntax(*args, **kwargs))

    placeholder.is_valid_syntax = is_valid_syntax  # type: ignore[attr-defined]
    sys.modules[name] = placeholder


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect no garbage inside the block: imports create little, and collections take a fifth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def share_type_adapters() -> None:
    """
    Build the decoders of a task's messages before the fork.

    The Task SDK builds them in each task process, and three more for each rendered field, which takes 20 ms of the
    60 ms of a trivial task.
    """
    from airflow.sdk.execution_time import comms, task_runner
    from pydantic import JsonValue, TypeAdapter

    kinds: tuple[Any, ...] = (comms.ToTask, JsonValue)
    adapters = {id(kind): TypeAdapter(kind) for kind in kinds}

    def type_adapter(kind: Any) -> Any:
        return adapters.get(id(kind)) or TypeAdapter(kind)

    # Both modules create their adapters with the name `TypeAdapter` at call time; a kind that isn't known here is built
    # as before.
    comms.TypeAdapter = task_runner.TypeAdapter = type_adapter


def accept_every_executor() -> None:
    """Accept tasks that name an executor which isn't configured: the worker runs all of them."""
    from airflow.dag_processing import dagbag

    # The DAG bag calls this check for each DAG it parses, and reports an import error for an unknown executor.
    dagbag._validate_executor_fields = lambda *_, **__: None


def preload(*, freeze: bool = True) -> None:
    """Import Airflow and the modules that its tasks use, in the process that will be forked.

    Parameters
    ----------
    freeze
        Whether to move all objects out of the garbage collector's reach. A collection in a fork would write to their
        headers, and so copy the memory pages that it shares with its parent.
    """
    defer_iri_grammar()
    with without_garbage_collection():
        for name in MODULES:
            importlib.import_module(name)
        from airflow.models import import_all_models

        import_all_models()
        share_type_adapters()
    accept_every_executor()
    if freeze:
        gc.collect()
        gc.freeze()
