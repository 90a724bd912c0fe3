"""The tasks of random DAGs. Their arguments describe what they do, so that a DAG file is readable alone."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, task, task_group
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

empty = EmptyOperator


@task(retry_delay=0)
def act(word: str, seen: Any = None, ti: Any = None) -> str:
    """Do what the word names; return the word and the values of other tasks."""
    if word == "skip":
        raise AirflowSkipException("as planned")
    if word == "final":
        raise AirflowFailException("as planned")
    if word == "fail" or (word == "flaky" and ti.try_number == 1):
        raise ValueError("as planned")
    if seen is None:
        return word
    return f"{word} after {seen if isinstance(seen, str | int) else list(seen)}"


@task
def give(items: list[Any]) -> list[Any]:
    """Return the values that other tasks are mapped over."""
    return items


@task.branch
def choose(task_ids: list[str]) -> list[str]:
    """Follow these branches."""
    return task_ids


@task.branch
def choose_by(word: str, task_ids: dict[str, list[str]]) -> list[str]:
    """Follow the branch that this instance of a mapped group chooses by its word."""
    return task_ids.get(word, [])


@task.short_circuit
def proceed(answer: bool) -> bool:
    """Continue, or skip the tasks after this one."""
    return answer


VOCABULARY = {
    "DAG": DAG,
    "TaskGroup": TaskGroup,
    "act": act,
    "choose": choose,
    "choose_by": choose_by,
    "empty": empty,
    "give": give,
    "proceed": proceed,
    "task_group": task_group,
}
