"""The command line where no stack is needed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from temporal_airflow_nb.cli import doctor, main
from temporal_airflow_nb.config import airflow_version, environment
from temporal_airflow_nb.errors import ServiceUnavailableError, UnsupportedVersionError
from temporal_airflow_nb.stack.services import temporal_server


@pytest.fixture
def run(tmp_path, capsys):
    def run(*arguments):
        code = main.main([*arguments, "--home", str(tmp_path / "home")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def checks(output):
    return {check["check"]: check for check in json.loads(output)["checks"]}


def test_status_without_a_stack_is_stopped(run):
    code, out, _ = run("status", "--output", "json")
    assert code == 0
    status = json.loads(out)
    assert [(row["name"], row["state"]) for row in status["services"]] == [
        ("temporal", "stopped"),
        ("database", "stopped"),
        ("worker", "stopped"),
    ]
    assert status["env"] == {}
    assert "stopped" in run("status")[1]


def test_env_without_a_stack_exports_nothing(run):
    code, out, err = run("status", "--env")
    assert (code, out) == (3, "")
    assert err.startswith("Error: No stack runs in")
    assert "temporal-airflow up" in err


@pytest.mark.parametrize("command", [("cancel",), ("clear",), ("mark", "failed")], ids=" ".join)
def test_runs_of_no_stack_cannot_be_reached(run, command):
    code, out, err = run(*command, "etl")
    assert (code, out) == (3, "")
    assert err.startswith("Error: No stack runs in")


def test_down_without_a_stack_succeeds(run, tmp_path):
    code, out, _ = run("down")
    assert code == 0
    assert out.startswith("No stack runs in")
    assert not (tmp_path / "home").exists()


def test_another_database_is_bad_input(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run("up", "--ui", "--db", "mysql")
    assert ended.value.code == 2
    assert "invalid choice: 'mysql'" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_missing_folder_of_dags_is_bad_input(run, tmp_path):
    code, _, err = run("up", "--ui", "--dags", str(tmp_path / "nowhere"))
    assert code == 2
    assert f"{tmp_path / 'nowhere'} is not a folder" in err


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_a_home_that_is_a_file_is_bad_input(run, tmp_path, command):
    (tmp_path / "home").write_text("")
    code, _, err = run(command)
    assert code == 2
    assert "is not a folder" in err


def test_an_invalid_port_is_bad_input(run, monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_PORT", "many")
    code, _, err = run("up", "--detach")
    assert code == 2
    assert "TEMPORAL_AIRFLOW_PORT='many' is not a port" in err


def test_another_airflow_is_refused_before_anything_starts(run, monkeypatch, tmp_path):
    monkeypatch.setattr(airflow_version, "AIRFLOW_MINOR", "2.9")
    code, _, err = run("up", "--detach")
    assert code == 2
    assert "works with Airflow 2.9" in err
    assert not (tmp_path / "home" / "stack.json").exists()
    with pytest.raises(UnsupportedVersionError) as info:
        airflow_version.check_airflow()
    assert info.value.facts["version"].startswith(environment.AIRFLOW_MINOR)


def test_doctor_finds_nothing_on_a_good_machine(run):
    code, out, _ = run("doctor", "--output", "json")
    found = checks(out)
    assert code == 0
    assert list(found) == [
        "python",
        "airflow",
        "temporalio",
        "temporal",
        "state folder",
        "ports",
        "stack",
        "queues",
        "schedules",
    ]
    assert {check["state"] for check in found.values()} == {"ok"}
    assert "temporal version" in found["temporal"]["detail"]


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("TEMPORAL_NATIVE_SCHEDULING", "sometimes", "true or false"),
        ("TEMPORAL_SCHEDULE_ID_PREFIX", "two\nlines", "printable characters"),
        ("TEMPORAL_SCHEDULE_ID_PREFIX", "x" * 201, "at most 200"),
    ],
)
def test_an_invalid_schedule_setting_is_named(run, monkeypatch, name, value, hint):
    monkeypatch.setenv(name, value)
    code, out, _ = run("doctor", "--output", "json")
    found = checks(out)["schedules"]
    assert (code, found["state"]) == (2, "problem")
    assert name in found["detail"]
    assert hint in found["next_step"]
    worker = subprocess.run(
        [sys.executable, "-m", "temporal_airflow_nb.cli.main", "worker"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert worker.returncode == 2
    assert name in worker.stderr
    assert "Traceback" not in worker.stderr


def test_doctor_names_each_problem_and_its_next_step(run, monkeypatch, tmp_path):
    def no_program():
        raise ServiceUnavailableError("Temporal's program is not installed.", hint="Install it.")

    monkeypatch.setattr(temporal_server, "find_program", no_program)
    monkeypatch.setattr(doctor, "NEWEST_PYTHON", (3, 9))
    (tmp_path / "home").write_text("")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("TEMPORAL_AIRFLOW_UI_PORT", str(server.getsockname()[1]))
        code, out, _ = run("doctor", "--output", "json")
    found = checks(out)
    assert code == 3
    problems = {name for name, check in found.items() if check["state"] == "problem"}
    assert problems == {"python", "temporal", "state folder", "ports"}
    assert all(found[name]["next_step"] for name in problems)
    assert "Install it." in run("doctor")[1]


def test_ctrl_c_ends_with_its_own_code(run, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_status", interrupted)
    assert run("status")[0] == 130


def test_an_unknown_command_is_bad_input(capsys):
    with pytest.raises(SystemExit) as info:
        main.main(["fly"])
    assert info.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback():
    shell = f"{sys.executable} -m temporal_airflow_nb.cli.main --help | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_the_package_imports_nothing_heavy():
    code = "import sys, temporal_airflow_nb; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"airflow", "temporalio", "pandas", "IPython", "rich", "sqlalchemy", "psutil"}
    assert not heavy & set(done.stdout.split())


def test_public_names_exist_and_others_do_not():
    import temporal_airflow_nb

    assert set(temporal_airflow_nb.__all__) <= set(dir(temporal_airflow_nb))
    assert temporal_airflow_nb.LocalStack.__name__ == "LocalStack"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = temporal_airflow_nb.Nothing
