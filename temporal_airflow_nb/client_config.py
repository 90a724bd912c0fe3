"""The Temporal client, configured as all of Temporal's tools are."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError

if TYPE_CHECKING:
    from temporalio.client import Client

DEFAULT_ADDRESS = "localhost:7233"


def connect_settings(profile: str | None = None) -> dict[str, Any]:
    """Return the arguments of ``Client.connect``, from ``TEMPORAL_*`` variables and the chosen profile.

    Parameters
    ----------
    profile
        A profile of ``temporal.toml``; ``$TEMPORAL_PROFILE``, or ``default``, where left out.

    Raises
    ------
    InvalidInputError
        The profile isn't there, or a setting can't be read.
    """
    from temporalio.envconfig import ClientConfig

    chosen = profile or os.environ.get("TEMPORAL_PROFILE")
    try:
        if chosen:
            _check_profile(chosen)
        settings = dict(ClientConfig.load_client_connect_config(profile))
    except InvalidInputError:
        raise
    except Exception as error:
        raise InvalidInputError(
            f"Temporal's client settings can't be used: {error}",
            hint="Check TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and the other TEMPORAL_ variables.",
        ) from error
    settings.setdefault("target_host", DEFAULT_ADDRESS)
    settings.setdefault("namespace", "default")
    return settings


def _check_profile(name: str) -> None:
    from temporalio.envconfig import ClientConfig

    known = sorted(ClientConfig.load().profiles)
    if name in known or name == "default":
        return
    hint = f"There are: {', '.join(known)}." if known else "No file with profiles was found."
    raise InvalidInputError(
        f"Temporal's settings have no profile {name!r}.",
        hint=f"{hint} They are read from $TEMPORAL_CONFIG_FILE, else from temporal.toml in Temporal's own folder.",
        profile=name,
        profiles=known,
    )


async def connect_client(*, profile: str | None = None, timeout: float = 10.0, **overrides: Any) -> Client:
    """Connect to the configured Temporal service.

    Parameters
    ----------
    profile
        A profile of ``temporal.toml``, as for :func:`connect_settings`.
    timeout
        Seconds to try for.
    **overrides
        Further arguments of ``temporalio.client.Client.connect``, such as ``data_converter``.

    Raises
    ------
    InvalidInputError
        The profile isn't there, or a setting can't be read.
    ServiceUnavailableError
        It can't be reached. ``facts``: ``address``, ``namespace``.
    """
    from temporalio.client import Client

    settings = {**connect_settings(profile), **overrides}
    address, namespace = settings["target_host"], settings["namespace"]
    try:
        return await asyncio.wait_for(Client.connect(**settings), timeout)
    except (RuntimeError, OSError, asyncio.TimeoutError) as error:
        reason = f"no answer in {timeout:.0f} s" if isinstance(error, asyncio.TimeoutError) else str(error)
        raise ServiceUnavailableError(
            f"Temporal at {address} can't be reached: {reason}",
            hint="Check TEMPORAL_ADDRESS or the profile, or start a stack with `temporal-airflow up`.",
            service="temporal",
            address=address,
            namespace=namespace,
        ) from error
