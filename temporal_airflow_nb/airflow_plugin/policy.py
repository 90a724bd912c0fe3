"""The entry point ``airflow.policy``, which every process of Airflow loads before its first session.

It defines no policy: it only uses the moment. An error here would end every Airflow command.
"""

from temporal_airflow_nb.airflow_plugin.startup import on_settings_loaded

on_settings_loaded()
