"""The package's folders import each other in one direction only, as ARCHITECTURE.md lists them."""

from __future__ import annotations

import pytest

from tests.structure import PACKAGE, Import, Structure, listed_layers

STRUCTURE = Structure()
LAYERS = listed_layers()

# Folders that must work in a process without Airflow or without Temporal, and the one module of them that is an
# exception: `airflow temporal doctor` is the one command of Airflow's that asks Temporal.
WITHOUT_AIRFLOW = (
    "api",
    "cells",
    "checks",
    "cli",
    "client",
    "config",
    "dag_runs",
    "display",
    "frames",
    "live_grid",
)
WITHOUT_TEMPORAL = ("airflow_plugin", "cells", "checks", "display", "frames", "tasks")
EXCEPTIONS = {
    f"{PACKAGE}.airflow_plugin.doctor",
    # The commands `run` and `worker` of the command line, which start a worker.
    f"{PACKAGE}.cli.worker",
    f"{PACKAGE}.cli.doctor",
}


def shown(found: list[Import]) -> list[str]:
    return [f"{one.importer}:{one.line} imports {one.imported}" for one in found]


def test_every_module_belongs_to_a_layer():
    assert [module for module in STRUCTURE.files if STRUCTURE.layer(module, LAYERS) is None] == []


def test_every_layer_exists():
    missing = [layer for layer in LAYERS if not (STRUCTURE.package / layer).exists()]
    assert missing == []


def test_a_module_imports_only_from_its_own_layer_and_the_layers_below():
    assert shown([one for _, _, one in STRUCTURE.upward(LAYERS)]) == []


def test_no_modules_import_each_other_in_a_circle():
    assert STRUCTURE.cycles() == []


def test_a_module_is_not_imported_under_another_name():
    assert shown([one for one in STRUCTURE.internal if one.renames_module]) == []


@pytest.mark.parametrize("folder", WITHOUT_AIRFLOW)
def test_a_folder_for_the_notebook_and_the_command_line_imports_no_airflow(folder):
    assert _imports_of(folder, "airflow") == []


@pytest.mark.parametrize("folder", WITHOUT_TEMPORAL)
def test_a_folder_without_temporal_imports_no_temporal(folder):
    assert _imports_of(folder, "temporalio") == []


def test_what_airflows_processes_load_imports_no_temporal_client():
    plugin = [name for name in STRUCTURE.files if name.startswith(f"{PACKAGE}.airflow_plugin")]
    assert plugin
    for module in {*plugin, f"{PACKAGE}.orchestrator"} - EXCEPTIONS:
        loaded = _loaded_with(module)
        assert [name for name in loaded if name.split(".")[0] == "temporalio"] == [], module


def _imports_of(folder: str, package: str) -> list[str]:
    inside = [one for one in STRUCTURE.imports if one.importer.startswith(f"{PACKAGE}.{folder}")]
    assert inside
    return shown(
        [
            one
            for one in inside
            if one.imported.split(".")[0] == package
            and not one.for_types_only
            and one.importer not in EXCEPTIONS
        ]
    )


def _loaded_with(module: str) -> set[str]:
    """Return what is imported with a module and when its functions are called, directly or not."""
    loaded: set[str] = set()
    left = [module]
    while left:
        importer = left.pop()
        for one in STRUCTURE.imports:
            executed = not one.for_types_only and (importer == module or not one.in_function)
            if one.importer == importer and executed and one.imported not in loaded:
                loaded.add(one.imported)
                left += [one.imported] if one.imported in STRUCTURE.files else []
    return loaded
