"""Connections and variables from the environment, and those that a task writes itself."""

from __future__ import annotations

from airflow.sdk import DAG, BaseHook, Connection, Variable, task

with DAG("connections_variables", schedule=None):

    @task
    def connection():
        found = BaseHook.get_connection("oracle_http")
        return {
            "type": found.conn_type,
            "host": found.host,
            "port": found.port,
            "login": found.login,
            "password length": len(found.password),
            "schema": found.schema,
            "extra": found.extra_dejson,
        }

    @task
    def json_connection():
        found = Connection.get("oracle_json")
        return [found.conn_type, found.host, found.extra_dejson]

    @task
    def variables():
        return {
            "plain": Variable.get("oracle_plain"),
            "json": Variable.get("oracle_json", deserialize_json=True),
            "default": Variable.get("oracle_missing", default="a default"),
        }

    @task
    def missing_variable():
        return Variable.get("oracle_missing")

    @task
    def missing_connection():
        return BaseHook.get_connection("oracle_missing").host

    @task
    def write():
        Variable.set("oracle_written", {"by": "a task"}, serialize_json=True)

    @task
    def read_written():
        written = Variable.get("oracle_written", deserialize_json=True)
        Variable.delete("oracle_written")
        return [written, Variable.get("oracle_written", default="gone")]

    connection()
    json_connection()
    variables()
    missing_variable()
    missing_connection()
    write() >> read_written()
