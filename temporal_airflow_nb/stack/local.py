"""The embedded stack: a Temporal server, an Airflow database and a worker on this machine.

Runs in the user's process. It starts a stack manager, which starts the services, or attaches to a manager that runs
already. The state is in the state folder and in the manager: a :class:`LocalStack` only has a pipe to the manager that
it has started (``_ownership``), and a share in a stack that lingers (``_share``). The file lock ``stack.lock`` is held
during each start, stop and join, so that processes do these one after the other.
"""

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
from temporal_airflow_nb.stack.state_folder import ServiceRow, StackRecord

if TYPE_CHECKING:
    from typing_extensions import Self

SERVICE_NAMES = ("temporal", "database", "worker")
_END = "End it (`temporal-airflow down`, or %temporal_down in a notebook)"


class LocalStack(Stack):
    """The embedded stack of a state folder.

    If the folder's stack runs already, :meth:`start` attaches to it, and the end of the ``with`` block leaves it
    running.

    Parameters
    ----------
    home
        The state folder; ``$TEMPORAL_AIRFLOW_HOME``, or ``.temporal_airflow`` in the working directory, if omitted.
    detach
        Whether the stack goes on when this process, or the ``with`` block, ends.
    ui
        Whether Airflow's API server, scheduler and DAG processor run too.
    db
        Airflow's metadata database: ``"sqlite"`` or ``"postgres"``; the folder's database, or SQLite, if omitted.
    linger
        Seconds for which the stack goes on after this process has died, so that another process with ``linger`` can
        take it over. Such a stack is shared: it ends when the last of these processes leaves.

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
        """Whether this object has started the stack; False if it was running already."""
        self._ownership: control.StackOwnership | None = None
        self._share: control.StackShare | None = None
        self._id: str | None = None

    def __repr__(self) -> str:
        return f"LocalStack({str(self.home)!r}, {'running' if self.is_running else 'stopped'})"

    @property
    def is_running(self) -> bool:
        """Whether the folder's stack runs, whichever process started it."""
        return state_folder.manager_is_running(self.home)

    def start(self) -> Self:
        """Start the folder's stack, or attach to it if it runs, and wait until it is ready.

        Raises
        ------
        InvalidInputError
            The state folder can't be used, has another kind of database, or its stack runs without Airflow's UI and
            ``ui`` asks for it.
        UnsupportedVersionError
            The installed Airflow isn't of the minor version that this package supports.
        ServiceUnavailableError
            A service doesn't start, or a requested port is taken.
        """
        state_folder.prepare_home(self.home)
        with self._start_lock():
            # Inside the lock: another process may just be creating the folder's database.
            kind = database.choose_kind(self.home, self.db)
            if not self._attach():
                check_airflow()
                # What is left of a stack that another process has ended. An old share would stay locked otherwise, and
                # `leave` would take it for that of another process.
                self._release()
                self._ownership = control.start_manager(
                    self.home,
                    detach=self.detach,
                    command=self._manager_command(),
                    options=["--db", kind, *(["--ui"] if self.ui else []), *self._linger_options()],
                )
                # Inside `stack.lock`, so that this process has its share before another one can join and leave.
                if self._linger_options():
                    self._share = control.take_share(self.home)
                self.started_here = True
                self._id = state_folder.read_stack(self.home).get("id")
            elif state_folder.read_stack(self.home).get("id") != self._id:
                # Another process has started the stack again: the manager that this object owned is gone.
                self._release_ownership()
        return self

    def stop(self) -> None:
        """End the folder's stack, whichever process started it. Does nothing if no stack runs."""
        if self._check_home():
            with self._start_lock():
                control.stop_stack(self.home)
        self._release()

    def join(self) -> None:
        """Take a share in the folder's stack, if it runs and lingers."""
        if self.linger and self._share is None and state_folder.read_stack(self.home).get("lingers"):
            with self._start_lock():
                self._attach()

    def leave(self) -> None:
        """End the stack if this process started it or is the last one with a share in it."""
        # `lingers` is read after the share is released: a detached stack, or one that was started since without
        # `linger`, isn't this process's to end.
        share, self._share = self._share, None
        if share is None:
            ends = self.started_here
        else:
            ends = share.release() and bool(state_folder.read_stack(self.home).get("lingers"))
        if ends:
            self.stop()
        self._release()

    def leave_running(self) -> None:
        """Let the stack go on after this process, or the ``with`` block, has ended."""
        if self._ownership is not None:
            self._ownership.detach_stack()
            self._ownership = None
        self._release_share()
        self.detach = True

    def __exit__(self, *exc_info: object) -> None:
        if self.started_here and not self.detach:
            self.stop()
        self._release()

    def status(self) -> dict[str, Any]:
        """Return the services' states, and the variables to export for Airflow's and Temporal's own tools.

        Raises
        ------
        InvalidInputError
            The state folder isn't a folder, or belongs to another user.
        """
        self._check_home()
        rows: list[ServiceRow] = [
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
        """The client of the stack's gateway, a new object each time.

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
        """The addresses of the stack's database and Temporal, empty while it doesn't run. Never production."""
        temporal = state_folder.read_stack(self.home).get("temporal") if self.is_running else None
        return {
            "airflow": f"database {database.address(self.home)}" if temporal else "",
            "temporal": f"{temporal['address']} / {temporal['namespace']}" if temporal else "",
            "profile": None,
            "production": False,
        }

    @property
    def links(self) -> dict[str, str]:
        """The addresses of the stack's UIs."""
        return state_folder.read_ui_urls(self.home)

    def register_folder(self, folder: str | os.PathLike[str]) -> str:
        """Register a folder of DAG files with the stack; return the name of its DAG bundle.

        In a stack with Airflow's UI, the folder's DAGs appear there, and change with the files.
        """
        # The stack may not have been started yet.
        state_folder.prepare_home(self.home)
        before = airflow_config.watched_bundles(self.home)
        name = airflow_config.watch_folder(self.home, folder)
        if name not in before and self._attach():
            # The worker reads the list of folders now. The DAG processor reads it at its start only, so that the
            # manager restarts it.
            self.client.reload_folders()
            control.reload_folders(self.home)
        return name

    def _check_home(self) -> bool:
        state_folder.check_path(self.home)
        there = os.path.lexists(self.home)
        if there:
            state_folder.check_access(self.home)
        return there

    def _manager_command(self) -> Sequence[str] | None:
        """Return the manager's command; None for the package's own. Tests replace it."""
        return None

    def _start_lock(self) -> Any:
        # Another process holds this lock during a whole start or stop, so that the wait may be as long as both.
        return state_folder.acquire_lock(
            self.home / state_folder.START_LOCK,
            timeout=control.START_TIMEOUT + control.STOP_TIMEOUT,
            waiting_for="Another start",
        )

    def _attach(self) -> bool:
        """Wait until the running stack is ready and take a share in it; return False if none runs.

        A stack that is ending is waited for as well: its manager still has its lock.
        """
        deadline = time.monotonic() + control.START_TIMEOUT
        while state_folder.manager_is_running(self.home):
            stack = state_folder.read_stack(self.home)
            # A stack in another state is starting or ending. The loop ends when it is ready or its manager is gone.
            if stack.get("state") == "ready":
                self._check_version(stack)
                self._check_ui(stack)
                # False while the manager checks whether any process has a share: the next round tries again.
                if self._take_share(stack):
                    return True
            if time.monotonic() > deadline:
                raise ServiceUnavailableError(
                    f"The stack in {self.home} has been {stack.get('state', 'unknown')} for too long.",
                    hint=f"{_END}; its logs are in {self.home / state_folder.LOGS}.",
                )
            time.sleep(0.05)
        return False

    def _take_share(self, stack: StackRecord) -> bool:
        """Take a share in a stack that lingers; return whether the stack can be used."""
        if self.linger and self._share is None and stack.get("lingers"):
            self._share = control.take_share(self.home)
            return self._share is not None
        return True

    def _linger_options(self) -> list[str]:
        return [] if self.detach or not self.linger else ["--linger", str(self.linger)]

    def _check_version(self, stack: StackRecord) -> None:
        if stack.get("version") != __version__:
            raise InvalidInputError(
                f"The stack in {self.home} is of version {stack.get('version')}, and this package of {__version__}.",
                hint=f"{_END}, then start again.",
            )

    def _check_ui(self, stack: StackRecord) -> None:
        if self.ui and not stack.get("airflow"):
            raise InvalidInputError(
                f"The stack in {self.home} runs without Airflow's UI.",
                hint=f"{_END}, then start it with --ui.",
            )

    def _release_share(self) -> None:
        if self._share is not None:
            self._share.release()
            self._share = None

    def _release(self) -> None:
        self._release_share()
        self._release_ownership()

    def _release_ownership(self) -> None:
        if self._ownership is not None:
            self._ownership.release()
            self._ownership = None
        self.started_here = False
