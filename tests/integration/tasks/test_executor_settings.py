"""Executor settings of a task are ignored with a warning."""

from __future__ import annotations

import textwrap

DAG = """
    from airflow.sdk import DAG, task

    with DAG("for_executors", schedule=None):

        @task(executor_config={"pod_override": {"cpu": 4}}, executor="KubernetesExecutor")
        def demanding():
            return "ran"

        @task(executor_config={"cpu": 1})
        def mapped(x):
            return x

        @task
        def modest():
            return "ran too"

        mapped.expand(x=[1, 2])
        demanding()
        modest()
"""


def test_executor_settings_are_ignored_with_a_warning(stack, tmp_path):
    path = tmp_path / "for_executors.py"
    path.write_text(textwrap.dedent(DAG))
    executor, config = stack.client.check_file(str(path))["warnings"]
    assert executor.startswith("executor of 'demanding' in DAG 'for_executors' is ignored")
    assert config.startswith("executor_config of 'mapped', 'demanding' in DAG 'for_executors' is ignored")
    run = stack.run(path)
    assert run.wait(timeout=60) == "success"
    assert "Ignoring executor and executor_config of this task" in str(run.logs("demanding"))
    assert "Ignoring executor_config of this task" in str(run.logs("mapped", map_index=1))
    assert "Ignoring" not in str(run.logs("modest"))
