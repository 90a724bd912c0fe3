"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from temporal_airflow_nb.display.merging import merge_order
from temporal_airflow_nb.frames.of_run import tasks_frame

if TYPE_CHECKING:
    import pandas as pd

    from temporal_airflow_nb.messages.runs import RunSnapshot

_KEY = ["task_id", "map_index"]
_COMPARED = {"state": "state", "duration": "duration", "try_number": "tries"}


class Comparison:
    """Two runs side by side, at the time of the comparison. See :func:`temporal_airflow_nb.compare`.

    Attributes
    ----------
    frame : pandas.DataFrame
        A task instance a row, in topological order: ``task_id``, ``map_index``, ``state_a``, ``state_b``
        (categories), ``duration_a``, ``duration_b`` (of the latest try), ``difference`` (b less a), ``ratio`` (b by
        a), ``tries_a``, ``tries_b``, ``only_in`` (``"a"`` or ``"b"`` if the other run has no such instance).
    svg : str
        The picture that a notebook shows: a complete SVG element.
    """

    def __init__(self, a: RunSnapshot, b: RunSnapshot) -> None:
        self._a, self._b = a, b
        self._now = datetime.now(timezone.utc)
        self.frame = _frame(tasks_frame(a), tasks_frame(b))

    @property
    def svg(self) -> str:
        """The picture, with the bars of both runs for each task."""
        from temporal_airflow_nb.display.comparison_svg import render_comparison

        return render_comparison(self._a, self._b, now=self._now)

    def __repr__(self) -> str:
        runs = (f"{name}: {run['dag_id']} {run['run_id']} {run['state']}" for name, run in self._named())
        return "\n".join([*runs, self.frame.to_string(index=False, max_rows=60)])

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f"<div>{self.svg}</div>"

    def _named(self) -> Iterable[tuple[str, RunSnapshot]]:
        return ("a", self._a), ("b", self._b)


def _frame(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    sides = [
        side[[*_KEY, *_COMPARED]].rename(
            columns={name: f"{prefix}_{run}" for name, prefix in _COMPARED.items()}
        )
        for side, run in ((a, "a"), (b, "b"))
    ]
    both = sides[0].merge(sides[1], on=_KEY, how="outer", indicator="only_in")
    order = merge_order(*(side[_KEY].itertuples(index=False, name=None) for side in sides))
    both = both.set_index(_KEY).reindex(pd.MultiIndex.from_tuples(order, names=_KEY)).reset_index()
    both["map_index"] = both["map_index"].astype("int64")
    difference = both["duration_b"] - both["duration_a"]
    ratio = both["duration_b"] / both["duration_a"]
    only_in = both["only_in"].map({"left_only": "a", "right_only": "b"}).astype(a["task_id"].dtype)
    frame: pd.DataFrame = pd.DataFrame(
        {
            **{name: both[name] for name in (*_KEY, "state_a", "state_b", "duration_a", "duration_b")},
            "difference": difference,
            "ratio": ratio,
            **{name: both[name].astype("Int64") for name in ("tries_a", "tries_b")},
            "only_in": only_in,
        }
    )
    return frame
