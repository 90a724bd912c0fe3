"""Random DAGs. ``python -m tests.compatibility.dags.random_lib 7`` prints the DAG of seed 7."""

from __future__ import annotations

from collections.abc import Iterable

from .author import dag_id_of, random_dag

__all__ = ["dag_id_of", "load", "random_dag"]


def load(seeds: Iterable[int], file: str) -> None:
    """Define the DAGs of these seeds in a DAG file, or only the DAG that Airflow is parsing."""
    from airflow.sdk import get_parsing_context

    from .acts import VOCABULARY

    wanted = get_parsing_context().dag_id
    for seed in seeds:
        if wanted in (None, dag_id_of(seed)):
            exec(compile(random_dag(seed).source, file, "exec"), dict(VOCABULARY))
