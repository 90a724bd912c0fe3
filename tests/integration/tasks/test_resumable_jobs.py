"""A job in another system goes on when the worker of its task is lost."""

from __future__ import annotations

import textwrap

import pytest

from tests.support.stack_helpers import kill, lines, pid_of, until

DAG = """
    import time
    from pathlib import Path
    from airflow.sdk import DAG, BaseOperator, ResumableJobMixin

    FOLDER = Path({folder!r})

    def note(text):
        with (FOLDER / "trace").open("a") as file:
            file.write(text + "\\n")

    class Job(ResumableJobMixin, BaseOperator):
        external_id_key = "job"

        def execute(self, context):
            return self.execute_resumable(context)

        def submit_job(self, context):
            note(f"submitted in try {{context['ti'].try_number}}")
            return "job-1"

        def get_job_status(self, external_id, context):
            return "RUNNING"

        def is_job_active(self, status):
            return status == "RUNNING"

        def is_job_succeeded(self, status):
            return False

        def poll_until_complete(self, external_id, context):
            note(f"waits for {{external_id}} in try {{context['ti'].try_number}}")
            while not (FOLDER / "go").exists():
                time.sleep(0.05)

        def get_job_result(self, external_id, context):
            return external_id

    with DAG("resumes", schedule=None):
        Job(task_id="job")
"""


@pytest.fixture
def own_stack(tmp_path):
    """A stack whose worker may be killed."""
    from temporal_airflow_nb import LocalStack

    with LocalStack(tmp_path / "home") as stack:
        yield stack


def test_a_job_is_not_submitted_again_after_its_worker_was_lost(own_stack, tmp_path):
    path, trace = tmp_path / "resumes.py", tmp_path / "trace"
    path.write_text(textwrap.dedent(DAG).format(folder=str(tmp_path)))
    run = own_stack.run(path)
    until(lambda: lines(trace, "waits"))
    kill(pid_of(own_stack, "worker"))
    until(lambda: len(lines(trace, "waits")) == 2, timeout=60)
    (tmp_path / "go").touch()
    assert run.wait(timeout=60) == "success"
    assert lines(trace, "submitted") == ["submitted in try 1"]
    assert lines(trace, "waits") == ["waits for job-1 in try 1"] * 2
