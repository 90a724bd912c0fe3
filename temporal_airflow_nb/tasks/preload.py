"""Imports everything a task process needs, once, before the first fork.

Forks share the imported modules' memory with their zygote until they write to it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import signal
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from temporal_airflow_nb.tasks.fork_safety import recording_seeds

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
    "airflow.providers.standard.sensors.external_task",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.executors.workloads",
    "airflow.utils.log.file_task_handler",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.decorators",
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


def import_plugins() -> None:
    """
    Import the modules of installed plugins. Each task process makes its own plugins from them.

    Airflow reads the metadata of each plugin's distribution twice for that, 2 ms: it is read once here.
    """
    from airflow.sdk._shared.module_loading import entry_points_with_dist
    from airflow.sdk._shared.plugins_manager import plugins_manager

    make_source = plugins_manager.EntryPointSource
    sources = {}
    for entry_point, distribution in entry_points_with_dist("airflow.plugins"):
        # Airflow reports a plugin that can't be imported when the task process loads it.
        with contextlib.suppress(Exception):
            entry_point.load()
            sources[entry_point.name, entry_point.value] = make_source(entry_point, distribution)

    def source_of(entry_point: Any, distribution: Any) -> Any:
        known = sources.get((entry_point.name, entry_point.value))
        return make_source(entry_point, distribution) if known is None else known

    plugins_manager.EntryPointSource = source_of


SAMPLE = """
from airflow.sdk import dag, task

@dag(schedule=None)
def sample():
    @task
    def step(value):
        return value

    step(1) >> step.override(task_id="mapped").expand(value=[1, 2])

sample()
"""


def parse_sample() -> None:
    """
    Parse a small DAG file once.

    Every task process parses its DAG file. What Airflow and Python prepare at the first parse, such as signatures and
    specialised bytecode, is shared with the forks: a tenth of the time of a small task.
    """
    from airflow.dag_processing.dagbag import BundleDagBag

    logger = logging.getLogger("airflow.dag_processing")
    level = logger.level
    logger.setLevel(logging.WARNING)
    alarm = signal.getsignal(signal.SIGALRM)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.py")
        path.write_text(SAMPLE)
        BundleDagBag(
            path, bundle_path=Path(folder), bundle_name="sample", safe_mode=False, load_op_links=False
        )
    signal.signal(signal.SIGALRM, alarm)
    logger.setLevel(level)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    for name in [name for name in sys.modules if name.startswith("unusual_prefix_")]:
        del sys.modules[name]


def clear_logger_caches_once() -> None:
    """
    Make the set-up of logs in a task process clear the loggers' caches once.

    Airflow sets the level of some 80 loggers there, and each time Python clears the caches of all loggers.
    """
    from airflow.sdk.execution_time import supervisor

    configure = supervisor._configure_logs_over_json_channel

    def configure_logs(log_fd: int) -> None:
        clear_cache = logging.Manager._clear_cache  # type: ignore[attr-defined]
        logging.Manager._clear_cache = lambda _: None  # type: ignore[attr-defined]
        try:
            configure(log_fd)
        finally:
            logging.Manager._clear_cache = clear_cache  # type: ignore[attr-defined]
            logging.root.manager._clear_cache()  # type: ignore[attr-defined]

    supervisor._configure_logs_over_json_channel = configure_logs


def let_crashes_end_the_process() -> None:
    """
    Keep Airflow from handling SIGSEGV while it imports a DAG file.

    Its handler is Python code. After a crash in native code, Python would first return to the crashing instruction,
    which crashes again, for ever.
    """
    from airflow.dag_processing.importers import python_importer

    class Signals(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(signal, name)

        def signal(self, number: int, handler: Any) -> Any:
            return None if number == signal.SIGSEGV else signal.signal(number, handler)

    python_importer.signal = Signals("signal")


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
    with without_garbage_collection(), recording_seeds():
        for name in MODULES:
            importlib.import_module(name)
        from airflow.models import import_all_models

        import_all_models()
        let_crashes_end_the_process()
        share_type_adapters()
        import_plugins()
        parse_sample()
    clear_logger_caches_once()
    accept_every_executor()
    if freeze:
        gc.collect()
        gc.freeze()
