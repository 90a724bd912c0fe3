"""The embedded stack: a Temporal development server, an Airflow database and a worker, on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb._version import __version__
from temporal_airflow_nb.client.gateway import GatewayClient
from temporal_airflow_nb.config import environment
from temporal_airflow_nb.config.airflow_version import check_airflow
from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.stack import state_folder
from temporal_airflow_nb.stack.base import Stack
from temporal_airflow_nb.stack.manager import control
from temporal_airflow_nb.stack.services import airflow_config, airflow_services, database, definitions

if TYPE_CHECKING:
    from typing_extensions import Self

SERVICE_NAMES = ("temporal", "database", "worker")
_END = "End it (`temporal-airflow down`, or %temporal_down in a notebook)"


class LocalStack(Stack):
    """The embedded stack of a state folder, started or attached to.

    Where the folder's stack runs already, :meth:`start` attaches to it, and leaving the ``with`` block leaves
    it running.

    Parameters
    ----------
    home
        The state folder; ``$TEMPORAL_AIRFLOW_HOME`` or ``.temporal_airflow`` here where left out.
    detach
        Whether the stack goes on when this process, or the ``with`` block, ends.
    ui
        Whether Airflow's API server, scheduler and DAG processor run too.
    db
        Airflow's metadata database: ``"sqlite"`` or ``"postgres"``; what the folder has, or SQLite, where left out.
    linger
        Seconds for which the stack goes on when this process has died, for another one that lingers to take over.
        Such a stack is shared: it ends when the last of them leaves.

    Examples
    --------
    >>> import temporal_airflow_nb as ta
    >>> with ta.LocalStack() as stack:                        # doctest: +SKIP
    ...     stack.run("dags/etl.py").wait()
    'success'
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        detach: bool = False,
        ui: bool = False,
        db: str | None = None,
        linger: float = 0.0,
    ) -> None:
        self.home = environment.home_path(home)
        self.detach = detach
        self.ui = ui
        self.db = db
        self.linger = linger
        self.started_here = False
        """Whether this object started the stack, rather than finding it running."""
        self._owner: control.Owner | None = None
        self._hold: control.Hold | None = None
        self._id: str | None = None

    def __repr__(self) -> str:
        return f"LocalStack({str(self.home)!r}, {'running' if self.is_running else 'stopped'})"

    @property
    def is_running(self) -> bool:
        """Whether the folder's stack runs, whoever started it."""
        return state_folder.manager_is_running(self.home)

    def start(self) -> Self:
        """Start the stack, or attach to the one that runs in the folder, and wait until it is ready.

        Raises
        ------
        InvalidInputError
            The state folder can't be used, has another kind of database, or its stack runs without the UI that is
            asked for.
        UnsupportedVersionError
            The installed Airflow isn't of the minor version that this package knows.
        ServiceUnavailableError
            A service doesn't start, or a port that was asked for is taken.
        """
        state_folder.prepare_home(self.home)
        with self._start_lock():
            kind = database.choose(self.home, self.db)
            if not self._attach():
                check_airflow()
                self._owner = control.start_manager(
                    self.home,
                    detach=self.detach,
                    command=self._manager_command(),
                    options=["--db", kind, *(["--ui"] if self.ui else []), *self._lingering()],
                )
                if self._lingering():
                    self._hold = control.hold(self.home)
                self.started_here = True
                self._id = state_folder.read_stack(self.home).get("id")
            elif state_folder.read_stack(self.home).get("id") != self._id:
                self._forget_owner()
        return self

    def stop(self) -> None:
        """End the folder's stack, whoever started it. Nothing happens where none runs."""
        if self._check_home():
            with self._start_lock():
                stack = state_folder.read_stack(self.home)
                if state_folder.manager_is_running(self.home):
                    control.stop_manager(self.home, stack[state_folder.MANAGER]["pid"], stack["id"])
        self._let_go()

    def join(self) -> None:
        """Take a share in the folder's stack, if it runs and is one that waits for its next owner."""
        if self.linger and self._hold is None and state_folder.read_stack(self.home).get("lingers"):
            with self._start_lock():
                self._attach()

    def leave(self) -> None:
        """End the stack if this process started it, or was the last of those that share it."""
        hold, self._hold = self._hold, None
        if hold is None:
            ends = self.started_here
        else:
            ends = hold.release() and bool(state_folder.read_stack(self.home).get("lingers"))
        if ends:
            self.stop()
        self._let_go()

    def leave_running(self) -> None:
        """Let the stack go on when this process, or the ``with`` block, ends."""
        if self._owner is not None:
            self._owner.hand_over()
            self._owner = None
        self._release_hold()
        self.detach = True

    def __exit__(self, *exc_info: object) -> None:
        if self.started_here and not self.detach:
            self.stop()
        self._let_go()

    def status(self) -> dict[str, Any]:
        """Return the services' states, and the variables to export for Airflow's and Temporal's own tools.

        Raises
        ------
        InvalidInputError
            The state folder is none, or another user's.
        """
        self._check_home()
        rows: list[dict[str, Any]] = [
            {"name": name, "state": "stopped", "address": None, "pid": None} for name in SERVICE_NAMES
        ]
        if not self.is_running:
            return {"services": rows, "env": {}}
        stack = state_folder.read_stack(self.home)
        known = {
            row["name"]: row for row in [definitions.database_status(self.home), *stack.get("services", [])]
        }
        rows = [known.pop(row["name"], row) for row in rows] + list(known.values())
        if "temporal" not in stack:
            return {"services": rows, "env": {}}
        if stack.get("airflow"):
            airflow_services.mark_unhealthy(rows, stack["ports"]["airflow_ui"])
        return {
            "services": rows,
            "env": definitions.tool_env(self.home, stack["temporal"], stack.get("airflow")),
        }

    @property
    def client(self) -> GatewayClient:
        """Client of the stack's gateway.

        Raises
        ------
        ServiceUnavailableError
            The stack isn't running.
        """
        if not self.is_running:
            raise ServiceUnavailableError(
                f"No stack runs in {self.home}.",
                hint="Start it: %temporal_up in a notebook, `temporal-airflow up`, or .start().",
                service="worker",
            )
        gateway = state_folder.read_stack(self.home)["gateway"]
        return GatewayClient(gateway["address"], gateway["token"])

    @property
    def where(self) -> dict[str, Any]:
        """Addresses of the stack's database and Temporal, empty texts while it doesn't run; never production."""
        temporal = state_folder.read_stack(self.home).get("temporal") if self.is_running else None
        return {
            "airflow": f"database {database.address(self.home)}" if temporal else "",
            "temporal": f"{temporal['address']} / {temporal['namespace']}" if temporal else "",
            "profile": None,
            "production": False,
        }

    @property
    def links(self) -> dict[str, str]:
        """Addresses of the stack's pages."""
        return state_folder.ui_urls(self.home)

    def register_folder(self, folder: str | os.PathLike[str]) -> str:
        """Make a folder with DAG files known to the stack's Airflow; returns the name of its bundle.

        With Airflow's UI, what the folder holds appears there, and follows the files.
        """
        before = airflow_config.watched_bundles(self.home)
        name = airflow_config.watch_folder(self.home, folder)
        if name not in before and self._attach():
            self.client.reload_folders()
            control.reread(self.home)
        return name

    def _check_home(self) -> bool:
        state_folder.check_name(self.home)
        there = os.path.lexists(self.home)
        if there:
            state_folder.check_home(self.home)
        return there

    def _manager_command(self) -> Sequence[str] | None:
        return None

    def _start_lock(self) -> Any:
        return state_folder.locked(
            self.home / state_folder.START_LOCK,
            timeout=control.START_TIMEOUT + control.STOP_TIMEOUT,
            waiting_for="Another start",
        )

    def _attach(self) -> bool:
        deadline = time.monotonic() + control.START_TIMEOUT
        while state_folder.manager_is_running(self.home):
            stack = state_folder.read_stack(self.home)
            if stack.get("state") == "ready":
                self._check_version(stack)
                self._check_ui(stack)
                if self._is_shared(stack):
                    return True
            if time.monotonic() > deadline:
                raise ServiceUnavailableError(
                    f"The stack in {self.home} is {stack.get('state', 'unknown')} for too long.",
                    hint=f"{_END}; its logs are in {self.home / state_folder.LOGS}.",
                )
            time.sleep(0.05)
        return False

    def _is_shared(self, stack: dict[str, Any]) -> bool:
        """Take a share where there are any; returns whether the stack can be used."""
        if self.linger and self._hold is None and stack.get("lingers"):
            self._hold = control.hold(self.home)
            return self._hold is not None
        return True

    def _lingering(self) -> list[str]:
        return [] if self.detach or not self.linger else ["--linger", str(self.linger)]

    def _check_version(self, stack: dict[str, Any]) -> None:
        if stack.get("version") != __version__:
            raise InvalidInputError(
                f"The stack in {self.home} is of version {stack.get('version')}, and this is {__version__}.",
                hint=f"{_END}, then start again.",
            )

    def _check_ui(self, stack: dict[str, Any]) -> None:
        if self.ui and not stack.get("airflow"):
            raise InvalidInputError(
                f"The stack in {self.home} runs without Airflow's UI.",
                hint=f"{_END}, then start it with --ui.",
            )

    def _release_hold(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _let_go(self) -> None:
        self._release_hold()
        self._forget_owner()

    def _forget_owner(self) -> None:
        if self._owner is not None:
            self._owner.release()
            self._owner = None
        self.started_here = False
