"""Native Airflow as the oracle: runs the same DAGs there and on an embedded stack, and compares the results."""
