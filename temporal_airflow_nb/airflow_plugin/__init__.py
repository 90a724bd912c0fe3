"""The entry points that the processes of a stock Airflow load. They use neither Temporal's SDK nor the network.

The only exception is the command ``airflow temporal doctor``.
"""
