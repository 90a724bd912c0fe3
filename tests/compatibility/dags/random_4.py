"""Random DAGs for Airflow, of 32 seeds."""

from random_lib import load

load(range(128, 160), __file__)
