"""Makes pandas frames of columns.

Runs in the user's process. The type of a column depends on its kind only, never on its values, so an empty frame has
the same types. Functions import pandas themselves, so that it is loaded only when a user asks for a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from temporal_airflow_nb.display.states import RUN_STATES, TASK_STATES
from temporal_airflow_nb.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

Columns = Mapping[str, Sequence[Any]]

MOMENT: Final = "datetime64[us, UTC]"
SPAN: Final = "timedelta64[us]"
TEXT: Final = "text"
NUMBER: Final = "int64"
"""A number without missing values; 0 if the source has none."""
INDEX: Final = "map_index"
"""A map index; -1 if there is none."""
SOME_NUMBER: Final = "Int64"
"""A number, possibly missing."""
FLAG: Final = "bool"
TASK_STATE: Final = "task state"
RUN_STATE: Final = "run state"
ANYTHING: Final = "object"

_STATES = {TASK_STATE: TASK_STATES, RUN_STATE: RUN_STATES}
_ABSENT = {NUMBER: 0, INDEX: -1, FLAG: False}
_BACKENDS = (None, "pyarrow")


def frame_of(columns: Columns, kinds: Mapping[str, str], dtype_backend: str | None = None) -> pd.DataFrame:
    """Return a frame with the columns that ``kinds`` names. A column that isn't given has missing values.

    Parameters
    ----------
    columns
        Values by column; all of the same length.
    kinds
        The kind of each column, such as ``TEXT``.
    dtype_backend
        ``"pyarrow"`` for columns that Arrow holds; states stay pandas categories, and values of any type objects.

    Raises
    ------
    InvalidInputError
        There is no such ``dtype_backend``, or pyarrow isn't installed.
    """
    import pandas as pd

    convert = _converter(dtype_backend)
    rows = max((len(values) for values in columns.values()), default=0)
    nothing = [None] * rows
    frame: pd.DataFrame = pd.DataFrame(
        {name: convert(columns.get(name, nothing), kind) for name, kind in kinds.items()}
    )
    return frame


def columns_of(records: Sequence[Mapping[str, object]], names: Iterable[str]) -> Columns:
    """Return records column by column; values that a record lacks are None."""
    return {name: [record.get(name) for record in records] for name in names}


def _converter(dtype_backend: str | None) -> Callable[[Sequence[Any], str], pd.Series[Any]]:
    if dtype_backend not in _BACKENDS:
        raise InvalidInputError(
            f"There is no dtype_backend {dtype_backend!r}.",
            hint='Use "pyarrow", or None for pandas\' own types.',
            dtype_backend=dtype_backend,
        )
    if dtype_backend is None:
        return _series
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InvalidInputError(
            'dtype_backend="pyarrow" needs pyarrow, which isn\'t installed.',
            hint='Install it: pip install "temporal-airflow-nb[arrow]"',
            dtype_backend=dtype_backend,
        ) from None
    return _arrow_series


def _series(values: Sequence[Any], kind: str) -> pd.Series[Any]:
    import pandas as pd

    data, dtype = _converted(values, kind)
    series: pd.Series[Any] = pd.Series(data, dtype=dtype)
    return series


def _converted(values: Sequence[Any], kind: str) -> tuple[Any, Any]:
    """Return values as pandas holds them, and their type; None if pandas infers the type."""
    import numpy as np
    import pandas as pd

    if kind in _STATES:
        return pd.Categorical(values, categories=[*_STATES[kind]]), None
    if kind == MOMENT:
        moments = pd.to_datetime(pd.Series(values, dtype=object), utc=True, format="ISO8601")
        return moments.astype(MOMENT), None
    if kind == SPAN:
        seconds = np.array(values, dtype="float64")
        spans = np.full(len(seconds), np.timedelta64("NaT"), dtype=SPAN)
        known = ~np.isnan(seconds)
        spans[known] = np.rint(seconds[known] * 1e6).astype("int64").astype(SPAN)
        return spans, None
    if kind in _ABSENT:
        absent = _ABSENT[kind]
        return [absent if value is None else value for value in values], "bool" if kind == FLAG else "int64"
    if kind == SOME_NUMBER:
        return values, "Int64"
    if kind == TEXT:
        return values, _text_dtype()
    # One by one: numpy would make a table of lists of equal length.
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        objects[position] = value
    return objects, object


def _arrow_series(values: Sequence[Any], kind: str) -> pd.Series[Any]:
    import pandas as pd
    import pyarrow as pa

    types = {
        MOMENT: pa.timestamp("us", "UTC"),
        SPAN: pa.duration("us"),
        NUMBER: pa.int64(),
        INDEX: pa.int64(),
        SOME_NUMBER: pa.int64(),
        FLAG: pa.bool_(),
        TEXT: pa.string(),
    }
    series: pd.Series[Any]
    if kind == TEXT:
        series = pd.Series(values, dtype=pd.ArrowDtype(types[kind]))
    else:
        series = _series(values, kind)
        if kind in types:
            series = series.astype(pd.ArrowDtype(types[kind]))
    return series


def _text_dtype() -> str:
    import pandas as pd

    # pandas 3 infers its own type for strings.
    return "object" if int(pd.__version__.split(".")[0]) < 3 else "str"
