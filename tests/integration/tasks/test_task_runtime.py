"""A task process executes the file as it is now, in a fork of a zygote or in a new interpreter."""

from __future__ import annotations

import getpass
import os
import textwrap
import zipfile

import pytest

from tests.support.stack_helpers import DAGS, lines, pid_of, psutil, states, until


def write(path, source):
    path.write_text(textwrap.dedent(source))
    return path


def ended(run):
    assert run.wait(timeout=60) == "success"
    return run


def value(run, task_id="tell"):
    assert run.wait(timeout=60) == "success", str(run.logs(task_id))
    xcoms = run.xcoms
    return xcoms.loc[xcoms["task_id"] == task_id, "value"].iloc[0]


TELL = """
    import os
    from airflow.sdk import dag, task
    {header}

    @dag(schedule=None)
    def {name}():
        @task
        def tell():
            return {expression}

        tell()

    {name}()
"""


def test_an_edited_file_is_used_at_once(stack, tmp_path):
    path = tmp_path / "edited.py"
    for expression in ("1", "22", "33"):
        write(path, TELL.format(name="edited", header="", expression=expression))
        assert value(stack.run(path)) == int(expression)


def test_an_added_task_is_used_at_once(stack, tmp_path):
    path = tmp_path / "grows.py"
    source = TELL.format(name="grows", header="", expression="1")
    assert states(ended(stack.run(write(path, source)))) == {"tell": "success"}
    more = source.replace("tell()\n\n", "tell() >> task(task_id='more')(lambda: 2)()\n\n")
    assert states(ended(stack.run(write(path, more)))) == {"tell": "success", "more": "success"}


def test_an_edited_module_beside_the_file_is_used_at_once(stack, tmp_path):
    source = TELL.format(
        name="with_module", header="import a_module_beside", expression="a_module_beside.VALUE"
    )
    path = write(tmp_path / "with_module.py", source)
    for number in (1, 22):
        write(tmp_path / "a_module_beside.py", f"VALUE = {number}")
        assert value(stack.run(path)) == number


def test_an_edited_data_file_of_the_dag_is_used_at_once(stack, tmp_path):
    header = "from pathlib import Path; number = Path(__file__).with_name('number.txt').read_text()"
    path = write(tmp_path / "with_data.py", TELL.format(name="with_data", header=header, expression="number"))
    for number in ("one", "another"):
        (tmp_path / "number.txt").write_text(number)
        assert value(stack.run(path)) == number


def test_an_edit_does_not_interrupt_a_running_task(stack, tmp_path):
    path, trace = tmp_path / "interrupted.py", tmp_path / "trace"
    source = (DAGS / "interrupted.py").read_text()
    path.write_text(source)
    run = stack.run(path, conf={"trace": str(trace), "seconds": 4})
    until(lambda: lines(trace, "middle-1"), "the middle task runs")
    path.write_text(f"{source}# edited\n")
    other = stack.run(path, conf={"trace": str(tmp_path / "other"), "seconds": 0})
    assert other.wait(timeout=60) == "success"
    assert run.wait(timeout=60) == "success"
    assert len(lines(trace, "middle-1")) == 1, "the edit has interrupted it"


def zygotes_above(stack, pid):
    """Return how many processes are between a task's process, whose parent is ``pid``, and the worker."""
    worker = pid_of(stack, "worker")
    number = 0
    while pid != worker:
        pid = psutil.Process(pid).ppid()
        number += 1
    return number


def test_a_try_is_forked_from_a_process_that_has_imported_the_installed_packages(stack, tmp_path):
    header = "import numpy; top = os.getpid()"
    expression = "[os.getppid(), top == os.getpid()]"
    path = write(
        tmp_path / "with_numpy.py", TELL.format(name="with_numpy", header=header, expression=expression)
    )
    for _ in range(2):
        parent, is_own = value(stack.run(path))
        assert is_own, "the file was executed in another process"
    assert zygotes_above(stack, parent) == 2
    # An edit may bring other imports; what the first try reports is imported for the others.
    header = "import numpy, wave; top = os.getpid()"
    write(path, TELL.format(name="with_numpy", header=header, expression=expression))
    later = [value(stack.run(path))[0] for _ in range(2)]
    assert zygotes_above(stack, later[1]) == 2
    assert later[1] != parent


def test_packages_are_imported_in_the_try_if_the_file_sets_the_environment(stack, tmp_path):
    header = "os.environ['OMP_NUM_THREADS'] = '1'; import numpy"
    path = write(
        tmp_path / "with_settings.py",
        TELL.format(name="with_settings", header=header, expression="os.getppid()"),
    )
    for _ in range(2):
        run = stack.run(path)
        assert zygotes_above(stack, value(run)) == 1
    assert "the file sets environment variables: OMP_NUM_THREADS" in str(run.logs("tell"))


def test_each_task_reads_a_top_level_variable(stack, tmp_path):
    header = "from airflow.sdk import Variable; found = Variable.get('changing', default='none')"
    path = write(
        tmp_path / "with_variable.py", TELL.format(name="with_variable", header=header, expression="found")
    )
    for content in ("first", "second"):
        variables = tmp_path / "variables.json"
        variables.write_text(f'{{"changing": "{content}"}}')
        assert value(stack.run(path, variables=variables)) == content


def test_the_parsing_context_names_the_task(stack, tmp_path):
    header = "from airflow.sdk import get_parsing_context; context = get_parsing_context()"
    expression = "[context.dag_id, context.task_id]"
    path = write(
        tmp_path / "in_context.py", TELL.format(name="in_context", header=header, expression=expression)
    )
    assert value(stack.run(path)) == ["in_context", "tell"]


def test_a_file_can_build_only_the_requested_dag(stack, tmp_path):
    source = """
        from airflow.sdk import DAG, get_parsing_context, task

        wanted = get_parsing_context().dag_id
        built = []
        for name in ("dynamic_a", "dynamic_b", "dynamic_c"):
            if wanted in (None, name):
                built.append(name)
                with DAG(name, schedule=None):
                    @task
                    def tell():
                        return built

                    tell()
    """
    path = write(tmp_path / "dynamic.py", source)
    for dag_id in ("dynamic_a", "dynamic_c"):
        assert value(stack.run(path, dag_id=dag_id)) == [dag_id]


def test_a_dag_in_a_zip_file_runs(stack, tmp_path):
    source = TELL.format(name="zipped", header="import in_the_zip", expression="in_the_zip.VALUE")
    path = tmp_path / "dags.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zipped.py", textwrap.dedent(source))
        archive.writestr("in_the_zip.py", "VALUE = 'zipped too'")
    assert value(stack.run(path)) == "zipped too"


def test_a_task_that_ends_its_process_is_a_failed_try(stack, tmp_path):
    source = TELL.format(name="gone", header="", expression="os._exit(7)")
    run = stack.run(write(tmp_path / "gone.py", source))
    assert run.wait(timeout=60) == "failed"
    assert states(run) == {"tell": "failed"}
    assert "exit_code=7" in str(run.logs("tell")).replace("'", "")


def test_a_large_xcom_and_a_large_log_are_kept(stack, tmp_path):
    source = TELL.format(
        name="large", header="", expression="'x' * 3_000_000 + (print('y' * 3_000_000) or '')"
    )
    run = stack.run(write(tmp_path / "large.py", source))
    assert len(value(run)) == 3_000_000
    assert "y" * 1_000 in str(run.logs("tell"))


# Airflow starts such a task with `sudo -E -H -u USER python …`. The test machine may have no sudo, and no other user
# who can read the interpreter: this replacement records the requested user and keeps the current one.
SUDO = """#!/bin/sh
[ "$1 $2 $3" = "-E -H -u" ] || exit 1
export RUN_AS="$4"
shift 4
exec "$@"
"""


@pytest.fixture(scope="module")
def interpreter_stack(tmp_path_factory):
    """Return a stack whose tasks run in new interpreters, as on macOS: they run as a given user, the current one."""
    from temporal_airflow_nb import LocalStack

    stand_in = tmp_path_factory.mktemp("bin") / "sudo"
    stand_in.write_text(SUDO)
    stand_in.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__DEFAULT_IMPERSONATION", getpass.getuser())
        patch.setenv("PATH", os.pathsep.join([str(stand_in.parent), os.environ["PATH"]]))
        with LocalStack(tmp_path_factory.mktemp("interpreter") / "home") as stack:
            yield stack


def test_a_task_runs_in_a_new_interpreter(interpreter_stack, tmp_path):
    expression = "[os.getppid(), os.getpid() == os.getpgid(0)]"
    path = write(
        tmp_path / "interpreter.py", TELL.format(name="interpreter", header="", expression=expression)
    )
    run = interpreter_stack.run(path)
    parent, leads_its_group = value(run)
    worker = next(row["pid"] for row in interpreter_stack.status()["services"] if row["name"] == "worker")
    assert parent == worker
    assert leads_its_group
    assert "Done. Returned value" in str(run.logs("tell"))


def test_a_task_that_ends_its_interpreter_fails(interpreter_stack, tmp_path):
    path = write(
        tmp_path / "interpreter_gone.py",
        TELL.format(name="interpreter_gone", header="", expression="os._exit(7)"),
    )
    run = interpreter_stack.run(path)
    assert run.wait(timeout=60) == "failed"


def test_cancel_ends_a_task_in_its_own_interpreter(interpreter_stack, tmp_path):
    trace = tmp_path / "trace"
    run = interpreter_stack.run(DAGS / "stubborn.py", conf={"trace": str(trace)})
    shell = int(until(lambda: lines(trace, ""), "the shell runs")[0])
    run.cancel()
    assert run.wait(timeout=30) == "failed"
    until(lambda: not psutil.pid_exists(shell), "the shell ends")


def test_a_task_of_another_user_runs_through_sudo(interpreter_stack, tmp_path):
    source = TELL.format(
        name="as_somebody", header="", expression="[os.environ['RUN_AS'], os.getpid() == os.getpgid(0)]"
    ).replace("@task\n", "@task(run_as_user='somebody')\n")
    run = interpreter_stack.run(write(tmp_path / "as_somebody.py", source))
    assert value(run) == ["somebody", True]
    assert "Running command" in str(run.logs("tell"))
