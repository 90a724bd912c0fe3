from concurrent.futures import Future
from unittest.mock import Mock

from temporal_airflow_nb.orchestration.activities import trigger_activities


async def test_a_trigger_can_end_after_its_cancelled_activity_has_stopped_waiting(monkeypatch):
    monkeypatch.setattr(trigger_activities, "_ON_KILL_SECONDS", 0.01)
    fired: Future[bool] = Future()
    activities = trigger_activities.TriggerActivities(Mock(), Mock())

    await activities._cancel(7, fired)

    # As the thread of `Triggers` does when `on_kill` has ended.
    fired.set_result(False)
    activities.triggers.cancel.assert_called_once_with(7)
