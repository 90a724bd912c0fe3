"""Tasks that wait for the test: a gate is a file that it creates."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowRescheduleException

from oracle_lib.effects import leave

FAR = timedelta(hours=1)


def gate(context: Any, name: str) -> Path:
    """Return the file that opens the gate ``name``."""
    return Path(context["dag_run"].conf["effects"] + ".gates") / name


def is_open(context: Any, name: str) -> bool:
    """Return whether a gate is open."""
    return gate(context, name).exists()


def hold(context: Any, name: str) -> None:
    """Return as soon as the gate ``name`` is open."""
    while not is_open(context, name):
        time.sleep(0.05)


class Hold(BaseOperator):
    """
    Runs until the gate of its name opens, or until it is killed.

    Parameters
    ----------
    stubborn
        Whether it continues after the signal to stop.
    """

    template_fields = ("name",)

    def __init__(self, *, name: str = "{{ task.task_id }}", stubborn: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.stubborn = stubborn
        self._killed = False

    def execute(self, context: Any) -> int:
        """Wait for the gate; return the try number."""
        self._context = context
        number = context["ti"].try_number
        leave(context, f"{self.name} try {number} starts")
        while not is_open(context, self.name) and not self._gives_up:
            time.sleep(0.05)
        if self._gives_up:
            raise RuntimeError("killed")
        leave(context, f"{self.name} try {number} ends")
        return number

    @property
    def _gives_up(self) -> bool:
        return self._killed and not self.stubborn

    def on_kill(self) -> None:
        """Write a line, and end the wait."""
        leave(self._context, f"{self.name} try {self._context['ti'].try_number} on_kill")
        self._killed = True


class Waits(BaseOperator):
    """Waits for an hour without a process in its first try, and succeeds in the next try."""

    def __init__(self, *, how: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how = how

    def execute(self, context: Any, event: Any = None) -> int:
        """Wait in the way that ``how`` names."""
        number = context["ti"].try_number
        if number == 1 and self.how == "retry":
            raise RuntimeError("later")
        if number == 1 and self.how == "reschedule":
            raise AirflowRescheduleException(datetime.now(tz=timezone.utc) + FAR)
        if number == 1 and self.how == "defer":
            self.defer(trigger=TimeDeltaTrigger(FAR), method_name="execute")
        return number
