"""Variables and connections from secrets backends: one of the workers, one of the server."""

from __future__ import annotations

from airflow.sdk import DAG, BaseHook, Variable, task

with DAG("secrets_backends", schedule=None):

    @task
    def variables():
        names = ("oracle_in_workers", "oracle_in_both", "oracle_in_server", "oracle_nowhere")
        return {name: Variable.get(name, default="missing") for name in names}

    @task
    def connections():
        found = [BaseHook.get_connection(name) for name in ("oracle_kept_conn", "oracle_server_conn")]
        return [[c.conn_id, c.conn_type, c.host, c.login, len(c.password)] for c in found]

    @task
    def masked():
        print("of the workers:", Variable.get("oracle_hidden_password"))
        print("of the server:", Variable.get("oracle_server_token"))
        print("of a connection:", BaseHook.get_connection("oracle_kept_conn").password)
        print("of the server's:", BaseHook.get_connection("oracle_server_conn").get_uri())

    @task
    def rendered(words):
        return len(words)

    @task
    def set_what_a_backend_has():
        Variable.set("oracle_in_workers", "set by the task")
        seen = Variable.get("oracle_in_workers")
        Variable.delete("oracle_in_workers")
        return seen

    [variables(), connections(), masked()] >> set_what_a_backend_has()
    rendered(
        "{{ var.value.oracle_hidden_password }} {{ conn.oracle_kept_conn.password }} {{ var.value.oracle_in_server }}"
    )
