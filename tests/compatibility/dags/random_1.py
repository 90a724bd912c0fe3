"""Random DAGs for Airflow, of 32 seeds."""

from random_lib import load

load(range(32, 64), __file__)
