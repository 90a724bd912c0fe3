"""The value of Airflow's ``[core] orchestrator`` that turns its runs over to Temporal."""

from __future__ import annotations


class TemporalOrchestrator:
    """
    Names this package in Airflow's configuration; the hooks in ``airflow_hooks`` do the rest.

    Examples
    --------
    In ``airflow.cfg``::

        [core]
        orchestrator = temporal_airflow_nb.orchestrator.TemporalOrchestrator
    """
