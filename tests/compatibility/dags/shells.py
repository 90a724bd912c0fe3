"""Shell commands as tasks."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

with DAG("shells", schedule=None):
    for name, options in {
        "last_line": {"bash_command": "echo first; echo last"},
        "no_output": {"bash_command": "true"},
        "not_pushed": {"bash_command": "echo last", "do_xcom_push": False},
        "fails": {"bash_command": "echo said; exit 3"},
        "skips": {"bash_command": "exit 99"},
        "skips_otherwise": {"bash_command": "exit 42", "skip_on_exit_code": [41, 42]},
        "never_skips": {"bash_command": "exit 99", "skip_on_exit_code": None},
        "of_a_pipe": {"bash_command": "set -o pipefail; false | cat"},
        "by_a_signal": {"bash_command": "kill -TERM $$"},
        "own_environment": {
            "bash_command": "echo ${ORACLE_A}-${HOME:-none}",
            "env": {"ORACLE_A": "{{ ti.task_id }}"},
        },
        "appended": {
            "bash_command": "echo ${ORACLE_A}-${HOME:+home}",
            "env": {"ORACLE_A": "a"},
            "append_env": True,
        },
        "context": {"bash_command": "echo $AIRFLOW_CTX_DAG_ID $AIRFLOW_CTX_TASK_ID $AIRFLOW_CTX_TRY_NUMBER"},
        "elsewhere": {"bash_command": "pwd", "cwd": "/"},
        "nowhere": {"bash_command": "pwd", "cwd": "/no/such/folder"},
        "processed": {"bash_command": "echo '{\"a\": [1]}'", "output_processor": lambda text: text.upper()},
        "of_several_lines": {"bash_command": "for n in 1 2\ndo\n  echo $n\ndone\n"},
        "bytes": {"bash_command": "printf '\\xff\\xfe caf\\xc3\\xa9\\n'"},
        "timed_out": {"bash_command": "sleep 60", "execution_timeout": timedelta(seconds=2)},
    }.items():
        BashOperator(task_id=name, **options)

    @task.bash(env={"ORACLE_B": "b"})
    def decorated(word):
        return f"echo {word} $ORACLE_B {{{{ ti.task_id }}}}"

    @task.bash
    def of_nothing():
        return ""

    @task.bash
    def of_a_number():
        return 3

    @task.bash(skip_on_exit_code=5)
    def skipping():
        return "exit 5"

    decorated("a word")
    of_nothing()
    of_a_number()
    skipping()
    decorated.override(task_id="mapped").expand(word=["x", "y"])
