"""A custom timetable with a list of moments."""

from __future__ import annotations

from datetime import datetime

import pendulum
from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable


class Moments(Timetable):
    """Creates a run at each listed moment."""

    description = "at some moments"

    def __init__(self, moments):
        self.moments = [pendulum.instance(moment) for moment in moments]

    def serialize(self):
        return {"moments": [moment.isoformat() for moment in self.moments]}

    @classmethod
    def deserialize(cls, data):
        return cls([datetime.fromisoformat(moment) for moment in data["moments"]])

    def infer_manual_data_interval(self, *, run_after):
        return DataInterval.exact(run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        for moment in self.moments:
            if last_automated_data_interval is None or moment > last_automated_data_interval.end:
                return DagRunInfo.exact(moment)
        return None


class MomentsPlugin(AirflowPlugin):
    """Registers the timetable."""

    name = "moments"
    timetables = (Moments,)
