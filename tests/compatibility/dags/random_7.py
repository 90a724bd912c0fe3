"""Random DAGs for Airflow, of 32 seeds."""

from random_lib import load

load(range(224, 256), __file__)
