"""Tests that the documents are correct: their code runs, their commands, links and settings exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDERS = [ROOT, *(ROOT / name for name in ("docs", "benchmarks", "deploy"))]
DOCUMENTS = sorted(path for folder in FOLDERS for path in folder.glob("*.md"))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_cells_of_the_readme_run(stack_home, stack):
    from IPython.core.interactiveshell import InteractiveShell

    load, cell, after, _ = blocks(ROOT / "README.md", "python")
    shell = InteractiveShell()
    for source in (load, cell.replace("%%temporal_dag", f"%%temporal_dag --home '{stack_home}'"), after):
        shell.run_cell(source).raise_error()
    assert shell.user_ns["run"].state == "success"
    assert shell.user_ns["run"].xcoms.set_index("task_id")["value"]["total"] == 14


def test_the_script_of_the_readme_runs(tmp_path):
    script = blocks(ROOT / "README.md", "python")[-1]
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "etl.py").write_text(
        "from airflow.sdk import DAG, task\n"
        "with DAG('etl', schedule=None, params={'day': ''}):\n"
        "    @task\n"
        "    def load(params=None):\n"
        "        return params['day']\n"
        "    load()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_commands_of_the_documents_exist():
    help_text = subprocess.run(
        [sys.executable, "-m", "temporal_airflow_nb.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text()
        for command in re.findall(r"`?temporal-airflow ([a-z]+)", text):
            assert re.search(rf"\b{command}\b", help_text), f"{document.name}: temporal-airflow {command}"
        for target in re.findall(r"`?\bmake ([a-z]+)(?:`|$|\s{2,})", text, re.MULTILINE):
            assert target in targets, f"{document.name}: make {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_targets_of_links_exist(document):
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), link


def test_the_readme_links_to_every_document():
    linked = set(re.findall(r"\]\(([^)#]+\.md)", (ROOT / "README.md").read_text()))
    assert {str(path.relative_to(ROOT)) for path in DOCUMENTS} - {"README.md"} <= linked


def test_every_setting_is_documented():
    named = r"TEMPORAL_AIRFLOW_[A-Z_]+"
    documented = set(re.findall(named, (ROOT / "docs" / "settings.md").read_text()))
    package = ROOT / "temporal_airflow_nb"
    read = {name for path in package.rglob("*.py") for name in re.findall(named, path.read_text())}
    between_processes = {
        f"TEMPORAL_AIRFLOW_{name}"
        for name in (
            "GATEWAY_ONLY",
            "GATEWAY_PORT",
            "OWN_PAGES_ONLY",
            "READY_FD",
            "STACK",
            "UI_PROXY",
        )
    }
    assert documented == read - between_processes


@pytest.fixture
def run_page(stack, monkeypatch, tmp_path):
    """Return a function that runs the cells of a page and returns their namespace."""
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", str(stack.home))
    monkeypatch.chdir(tmp_path)
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()

    async def run(name: str) -> dict[str, object]:
        for source in blocks(ROOT / "docs" / name, "python"):
            done = await shell.run_cell_async(source, transformed_cell=shell.transform_cell(source))
            done.raise_error()
        return shell.user_ns

    yield run
    shell.run_line_magic("unload_ext", "temporal_airflow_nb")
    InteractiveShell.clear_instance()


async def test_the_page_about_the_notebook_runs(run_page):
    left = await run_page("notebook.md")
    assert left["run"].state == "success"
    assert list(left["run"].xcoms["value"]) == ["2026-01-02"]


async def test_the_page_about_the_grid_runs(run_page, capsys):
    left = await run_page("grid.md")
    assert left["run"].state == "failed"
    assert "✗ parse" in capsys.readouterr().out


async def test_the_tutorial_runs(run_page):
    left = await run_page("tutorial.md")
    run = left["run"]
    assert run.state == "success"
    tries = run.tasks.set_index(["task_id", "map_index"])["try_number"]
    assert tries["price", 0] == 1
    assert tries["price", 1] == 2
    assert run.xcoms.set_index("task_id")["value"]["total"] == 14
