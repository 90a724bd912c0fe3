"""Runs as pandas frames: moments in UTC, states a category in Airflow's order, durations ``Timedelta``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from temporal_airflow_nb.display.states import TASK_STATES

if TYPE_CHECKING:
    import pandas as pd

_MOMENT: Final = "datetime64[us, UTC]"
_SPAN: Final = "timedelta64[us]"

_TASK_COLUMNS = {
    "task_id": "text",
    "map_index": "int64",
    "state": "state",
    "try_number": "int64",
    "max_tries": "int64",
    "operator": "text",
    "start_date": _MOMENT,
    "end_date": _MOMENT,
    "duration": _SPAN,
    "queued_dttm": _MOMENT,
    "pool": "text",
    "label": "text",
    "group": "text",
}
_XCOM_COLUMNS = {
    "task_id": "text",
    "map_index": "int64",
    "key": "text",
    "value": "object",
    "timestamp": _MOMENT,
}


def tasks_frame(snapshot: Mapping[str, Any]) -> pd.DataFrame:
    """Return the task instances of a snapshot, one a row, in topological order.

    Parameters
    ----------
    snapshot
        A run as the stack describes it.

    Returns
    -------
    pandas.DataFrame
        ``task_id``, ``map_index`` (-1 if not mapped), ``state`` (category; missing while the task has
        none), ``try_number`` (0 before the first try), ``max_tries`` (retries allowed), ``operator``,
        ``start_date``, ``end_date``, ``duration`` (missing until the try ends), ``queued_dttm``, ``pool``,
        ``label`` (of a mapped instance), ``group`` (id of the task group).

    Examples
    --------
    >>> tasks_frame({"tasks": []}).dtypes["duration"]
    dtype('<m8[us]')
    """
    return _frame(snapshot.get("tasks") or (), _TASK_COLUMNS)


def xcoms_frame(xcoms: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return XComs, one a row.

    Parameters
    ----------
    xcoms
        XComs as the stack describes them, values deserialised.

    Returns
    -------
    pandas.DataFrame
        ``task_id``, ``map_index`` (-1 if not mapped), ``key``, ``value`` (any object), ``timestamp``.
    """
    return _frame(list(xcoms), _XCOM_COLUMNS)


def _frame(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {name: _column([r.get(name) for r in records], kind) for name, kind in columns.items()}
    )


def _column(values: list[Any], kind: str) -> pd.Series:
    import pandas as pd

    if kind == "state":
        return pd.Series(pd.Categorical(values, categories=[*TASK_STATES]))
    if kind == _MOMENT:
        return pd.Series(
            pd.to_datetime(pd.Series(values, dtype=object), utc=True, format="ISO8601").astype(_MOMENT)
        )
    if kind == _SPAN:
        microseconds = [None if value is None else round(value * 1e6) for value in values]
        return pd.Series(pd.to_timedelta(pd.array(microseconds, dtype="Int64"), unit="us")).astype(_SPAN)
    if kind == "int64":
        return pd.Series(values, dtype="int64")
    if kind == "text":
        return pd.Series(values, dtype=_text_dtype())
    series = pd.Series([None] * len(values), dtype=object)
    for position, value in enumerate(values):
        series.iat[position] = value
    return series


def _text_dtype() -> str:
    import pandas as pd

    return "object" if int(pd.__version__.split(".")[0]) < 3 else "str"
