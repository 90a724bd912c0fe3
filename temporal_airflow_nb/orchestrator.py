"""The class that Airflow's setting ``[core] orchestrator`` names to hand runs over to Temporal."""

from __future__ import annotations


class TemporalOrchestrator:
    """
    Turns this package on in Airflow's configuration. The hooks in ``airflow_plugin`` do the work.

    Examples
    --------
    In ``airflow.cfg``::

        [core]
        orchestrator = temporal_airflow_nb.orchestrator.TemporalOrchestrator
    """
