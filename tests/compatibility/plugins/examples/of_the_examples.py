"""What Airflow's examples need registered, as Airflow does when it loads its examples by itself."""

from __future__ import annotations

from airflow.example_dags.plugins.decreasing_priority_weight_strategy import (
    DecreasingPriorityWeightStrategyPlugin as DecreasingPriorityWeightStrategyPlugin,
)
from airflow.example_dags.plugins.workday import WorkdayTimetablePlugin as WorkdayTimetablePlugin
