"""Airflow DAGs in notebook cells: the ``%%temporal_dag`` magic and its live grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register the magics and the completion. Nothing is started until a cell needs it."""
    from temporal_airflow_nb.config import settings
    from temporal_airflow_nb.notebook import completion
    from temporal_airflow_nb.notebook.magics import TemporalMagics

    settings.install(ipython)
    ipython.register_magics(TemporalMagics)
    completion.install(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Remove the magics, stop following runs, and end the stacks that this kernel started."""
    from temporal_airflow_nb.config import settings
    from temporal_airflow_nb.live_grid import live
    from temporal_airflow_nb.notebook import completion
    from temporal_airflow_nb.notebook.magics import TemporalMagics
    from temporal_airflow_nb.stack import current

    # IPython has no function that removes magics; without this, they would still work after the extension is unloaded.
    manager = ipython.magics_manager
    magics = manager.registry.pop(TemporalMagics.__name__, None)
    for kind, names in TemporalMagics.magics.items():
        for name in names:
            if magics is not None:
                manager.magics[kind].pop(name, None)
    completion.remove(ipython)
    settings.remove(ipython)
    # Before the stacks end: grids that still followed runs would show that their stack can't be reached.
    live.close_all("The extension was unloaded, so this grid stopped updating.")
    current.leave_stacks()
