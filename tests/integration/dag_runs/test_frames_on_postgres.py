"""Frames if Airflow's database is PostgreSQL, which formats times differently."""

from __future__ import annotations

import pandas as pd

import temporal_airflow_nb as ta
from temporal_airflow_nb import LocalStack
from temporal_airflow_nb.dag_runs.frames import FRAMES
from temporal_airflow_nb.frames import tasks_frame
from tests.support.paths import INTEGRATION_DAGS

HARVEST = INTEGRATION_DAGS / "harvest.py"


def test_frames_are_the_same_on_postgres(tmp_path):
    with LocalStack(tmp_path / "home", db="postgres") as stack:
        run = stack.run(HARVEST, dag_id="harvest")
        assert run.wait(timeout=60) == "failed"
        pd.testing.assert_frame_equal(run.tasks, tasks_frame(run.snapshot()))
        assert {name: len(run.frame(name)) > 0 for name in FRAMES} == dict.fromkeys(FRAMES, True)
        assert run.tries["queued_dttm"].notna().all()
        runs = ta.runs("harvest", state="failed", client=stack.client)
        assert list(runs["run_id"]) == [run.run_id]
        assert ta.dags(client=stack.client)["last_run_start"].notna().any()
        assert list(ta.pools(client=stack.client)["pool"]) == ["default_pool"]
