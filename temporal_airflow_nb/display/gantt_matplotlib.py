"""Draw the Gantt chart of a run with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.display.states import NO_STATUS, get_style
from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd


def draw_gantt(tries: pd.DataFrame, title: str) -> Any:
    """Draw the frame of :func:`~temporal_airflow_nb.frames.tries_frame` and return the axes.

    Raises
    ------
    InvalidInputError
        matplotlib isn't installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise InvalidInputError(
            "matplotlib isn't installed.",
            hint="Install it: pip install matplotlib. Without `library` the chart is an SVG, which needs no package.",
        ) from None
    import pandas as pd

    begun = tries[tries["start_date"].notna()]
    mapped = begun["map_index"].ge(0)
    names = (
        begun["task_id"]
        .astype(object)
        .where(~mapped, begun["task_id"].astype(object) + " [" + begun["map_index"].astype(str) + "]")
    )
    begin = begun["start_date"].min()
    end = begun["end_date"].fillna(pd.Timestamp.now("UTC"))
    _, chart = pyplot.subplots(figsize=(9, 1 + 0.25 * names.nunique()))
    chart.barh(
        names,
        (end - begun["start_date"]).dt.total_seconds(),
        left=(begun["start_date"] - begin).dt.total_seconds(),
        color=[get_style(state if isinstance(state, str) else NO_STATUS).color for state in begun["state"]],
    )
    chart.invert_yaxis()
    chart.set_xlabel("seconds")
    chart.set_title(title)
    return chart
