"""Random DAGs for Airflow, of 32 seeds."""

from random_lib import load

load(range(96, 128), __file__)
