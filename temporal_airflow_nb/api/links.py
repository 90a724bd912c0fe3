"""Addresses of the UIs of a stack, as the user's browser reaches them."""

from __future__ import annotations

from temporal_airflow_nb.display import notices
from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.stack import current

PAGES = ("airflow", "temporal")


class Link(str):
    """An address that notebooks show as a link."""

    name = ""

    def _repr_html_(self) -> str:
        return str(notices.render_link(self.name, self))


def page(name: str, home: str | None = None) -> Link:
    """Return the address of Airflow's or Temporal's UI.

    On a JupyterHub, the address is below that of the user's server.

    Parameters
    ----------
    name
        ``"airflow"`` or ``"temporal"``.
    home
        State folder of the stack; the stack in use if omitted.

    Raises
    ------
    InvalidInputError
        There is no such UI, or the stack runs without it.
    ServiceUnavailableError
        The stack isn't running.

    Examples
    --------
    >>> page("temporal")                                            # doctest: +SKIP
    'http://127.0.0.1:8233'
    """
    if name not in PAGES:
        raise InvalidInputError(
            f"There is no UI {name!r}.", hint=f"Choose one of: {', '.join(PAGES)}.", page=name
        )
    stack = current.current(home)
    # `client` raises an error that says how to start a stack, if none is running.
    links: dict[str, str] = getattr(stack, "links", {}) if stack.client else {}
    if name not in links:
        raise InvalidInputError(
            f"This stack has no {name.capitalize()} UI.",
            hint="For the Airflow UI of an embedded stack, end it with `down` and start it with `up --ui`.",
            page=name,
        )
    link = Link(links[name])
    link.name = name
    return link
