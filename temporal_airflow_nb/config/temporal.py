"""Makes the Temporal client, configured by profiles and variables as all of Temporal's tools are.

Used in every process that talks to Temporal: the worker, the dispatcher in it, ``doctor``, and a notebook that follows
runs through Temporal alone. The profile is read by Temporal's SDK.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError

if TYPE_CHECKING:
    from temporalio.client import Client

DEFAULT_ADDRESS = "localhost:7233"
# The errors of the SDK's core are the debug texts of nested Rust values, which may change with each version. A text
# that isn't recognized is shown as it is.
_MESSAGE = re.compile(r'(?:message|error): "(?!transport error)([^"]+)"')
# Parts of the SDK's error texts about TLS; for each the reason and the hint to show. The first match counts.
_TLS_ERRORS = {
    "InvalidContentType": (
        "it isn't encrypted, and TLS is on",
        "An API key or the profile turns TLS on. TEMPORAL_TLS=false turns it off.",
    ),
    "UnknownIssuer": (
        "its certificate isn't signed by a trusted authority",
        "Name the authority: server_ca_cert_path in the profile, or TEMPORAL_TLS_SERVER_CA_CERT_PATH.",
    ),
    "NotValidForName": (
        "its certificate is for another name",
        "Set the certificate's name: server_name in the profile, or TEMPORAL_TLS_SERVER_NAME.",
    ),
    "CertificateRequired": (
        "it requires a client certificate",
        "Name the certificate and its key: client_cert_path and client_key_path in the profile, "
        "or TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH.",
    ),
    "received fatal alert": (
        "it doesn't accept the client's certificate",
        "Check client_cert_path in the profile, or TEMPORAL_TLS_CLIENT_CERT_PATH.",
    ),
    "KeyMismatch": (
        "the client's key isn't that of its certificate",
        "Check client_key_path in the profile, or TEMPORAL_TLS_CLIENT_KEY_PATH.",
    ),
    "PrivateKeyParseError": (
        "the client's key can't be read",
        "Check client_key_path in the profile, or TEMPORAL_TLS_CLIENT_KEY_PATH.",
    ),
    "call error after connection": (
        "it ends the connection",
        "It may require TLS (TEMPORAL_TLS=true), or a client certificate: client_cert_path and client_key_path in the "
        "profile.",
    ),
}


def connect_settings(profile: str | None = None) -> dict[str, Any]:
    """Return the arguments of ``Client.connect``, from ``TEMPORAL_*`` variables and the chosen profile.

    Parameters
    ----------
    profile
        A profile of ``temporal.toml``; ``$TEMPORAL_PROFILE``, or ``default``, if omitted.

    Raises
    ------
    InvalidInputError
        The profile doesn't exist, or a setting can't be read.
    """
    from temporalio.envconfig import ClientConfig

    chosen = profile or os.environ.get("TEMPORAL_PROFILE")
    try:
        if chosen:
            _check_profile(chosen)
        settings = dict(ClientConfig.load_client_connect_config(profile))
    except InvalidInputError:
        raise
    except OSError as error:
        of = (
            f", a file of Temporal's profile {chosen!r},"
            if chosen
            else ", a file of Temporal's client settings,"
        )
        raise InvalidInputError(
            f"{error.filename}{of} can't be read: {error.strerror}",
            hint="Check the paths of the certificates and keys.",
            path=error.filename,
        ) from error
    # The SDK raises its errors about the file as plain exceptions of several classes.
    except Exception as error:
        file = os.environ.get("TEMPORAL_CONFIG_FILE")
        reason = str(error).removeprefix("Configuration loading error: ").strip()
        raise InvalidInputError(
            f"Temporal's client settings{f' in {file}' if file else ''} can't be used: {reason}",
            hint="Check temporal.toml, TEMPORAL_PROFILE and the other TEMPORAL_ variables.",
        ) from error
    if chosen not in (None, "", "default") and "target_host" not in settings:
        raise InvalidInputError(
            f"Temporal's profile {chosen!r} has no address.",
            hint='Add a line to the profile, address = "host:7233", or set TEMPORAL_ADDRESS.',
            profile=chosen,
        )
    settings.setdefault("target_host", DEFAULT_ADDRESS)
    settings.setdefault("namespace", "default")
    return settings


def _check_profile(name: str) -> None:
    from temporalio.envconfig import ClientConfig

    known = sorted(ClientConfig.load().profiles)
    if name in known or name == "default":
        return
    hint = f"Profiles: {', '.join(known)}." if known else "No file with profiles was found."
    raise InvalidInputError(
        f"Temporal's settings have no profile {name!r}.",
        hint=f"{hint} They are read from $TEMPORAL_CONFIG_FILE, else from temporal.toml in Temporal's own folder.",
        profile=name,
        profiles=known,
    )


async def connect_client(*, profile: str | None = None, timeout: float = 10.0, **overrides: Any) -> Client:
    """Connect to the configured Temporal server.

    Parameters
    ----------
    profile
        A profile of ``temporal.toml``, as for :func:`connect_settings`.
    timeout
        Seconds after which the attempt fails.
    **overrides
        Further arguments of ``temporalio.client.Client.connect``, such as ``data_converter``.

    Raises
    ------
    InvalidInputError
        The profile doesn't exist, or a setting can't be used.
    ServiceUnavailableError
        The server can't be reached. ``facts``: ``address``, ``namespace``.
    """
    from temporalio.client import Client

    settings = {**connect_settings(profile), **overrides}
    address, namespace = settings["target_host"], settings["namespace"]
    try:
        return await asyncio.wait_for(Client.connect(**settings), timeout)
    except ValueError as error:
        raise InvalidInputError(
            f"The client settings for Temporal at {address} can't be used: {error}",
            hint="Check the TEMPORAL_ variables or the profile.",
            address=address,
        ) from error
    except (RuntimeError, OSError, asyncio.TimeoutError) as error:
        text = f"no answer in {timeout:.0f} s" if isinstance(error, asyncio.TimeoutError) else str(error)
        reason, hint = next(
            (known for name, known in _TLS_ERRORS.items() if name in text), (_inner_message(text), "")
        )
        if ":" not in address:
            hint = "The port is missing. Write the address as host:7233."
        raise ServiceUnavailableError(
            f"Temporal at {address} can't be reached: {reason}",
            hint=hint
            or "Check TEMPORAL_ADDRESS or the profile, or start a stack with `temporal-airflow up`.",
            service="temporal",
            address=address,
            namespace=namespace,
        ) from error


async def check_namespace(client: Client) -> None:
    """Raise an error if the client's namespace doesn't exist, or the client has no access to it.

    Raises
    ------
    InvalidInputError
        Temporal has no such namespace, or refuses the client's key or certificate.
    """
    # Connecting doesn't need the namespace: only a request shows whether it exists.
    from temporalio.service import RPCError, RPCStatusCode

    address = client.service_client.config.target_host
    try:
        async for _ in client.list_workflows(page_size=1, limit=1):
            pass
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise InvalidInputError(
                f"Temporal at {address} has no namespace {client.namespace!r}.",
                hint="Check TEMPORAL_NAMESPACE or the profile.",
                address=address,
                namespace=client.namespace,
            ) from error
        if error.status in (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED):
            raise InvalidInputError(
                f"Temporal at {address} refuses this client in namespace {client.namespace!r}: {error.message}",
                hint="Check the API key or the certificate, and its permissions.",
                address=address,
                namespace=client.namespace,
            ) from error
        raise


def is_configured(profile: str | None = None) -> bool:
    """Return whether the settings contain an address. Without one, the client connects to this machine."""
    from temporalio.envconfig import ClientConfig

    return "target_host" in ClientConfig.load_client_connect_config(profile)


def _inner_message(text: str) -> str:
    """Return the innermost message of an error of the SDK.

    >>> _inner_message('Failed client connect: tonic::Error(ConnectError(1, Os { message: "Connection refused" }))')
    'Connection refused'
    """
    found = _MESSAGE.findall(text)
    return found[-1].strip() if found else text.removeprefix("Failed client connect: ")
