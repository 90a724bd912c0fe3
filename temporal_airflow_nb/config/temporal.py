"""The Temporal client, configured as all of Temporal's tools are."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError

if TYPE_CHECKING:
    from temporalio.client import Client

DEFAULT_ADDRESS = "localhost:7233"
_MESSAGE = re.compile(r'(?:message|error): "(?!transport error)([^"]+)"')
# What the SDK says of TLS, what that means, and what to do.
_TLS_ERRORS = {
    "InvalidContentType": (
        "it isn't encrypted, and TLS is on",
        "An API key or the profile turns it on, TEMPORAL_TLS=false off.",
    ),
    "UnknownIssuer": (
        "its certificate is signed by nobody who is trusted",
        "Name the authority: server_ca_cert_path in the profile, or TEMPORAL_TLS_SERVER_CA_CERT_PATH.",
    ),
    "NotValidForName": (
        "its certificate is for another name",
        "Name it as there: server_name in the profile, or TEMPORAL_TLS_SERVER_NAME.",
    ),
    "CertificateRequired": (
        "it wants a certificate of the client",
        "Name it and its key: client_cert_path and client_key_path in the profile, "
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
        "It may want TLS (TEMPORAL_TLS=true), or a certificate of the client: client_cert_path and "
        "client_key_path in the profile.",
    ),
}


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
            hint='Write one into it, address = "host:7233", or set TEMPORAL_ADDRESS.',
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
    except ValueError as error:
        raise InvalidInputError(
            f"Temporal at {address} can't be asked with these settings: {error}",
            hint="Check the TEMPORAL_ variables or the profile.",
            address=address,
        ) from error
    except (RuntimeError, OSError, asyncio.TimeoutError) as error:
        text = f"no answer in {timeout:.0f} s" if isinstance(error, asyncio.TimeoutError) else str(error)
        reason, hint = next(
            (known for name, known in _TLS_ERRORS.items() if name in text), (_inner_message(text), "")
        )
        if ":" not in address:
            hint = "Its port is missing: write it as host:7233."
        raise ServiceUnavailableError(
            f"Temporal at {address} can't be reached: {reason}",
            hint=hint
            or "Check TEMPORAL_ADDRESS or the profile, or start a stack with `temporal-airflow up`.",
            service="temporal",
            address=address,
            namespace=namespace,
        ) from error


async def check_namespace(client: Client) -> None:
    """Refuse a namespace that isn't there, or that this client may not look into.

    Raises
    ------
    InvalidInputError
        Temporal has no such namespace, or refuses the client's key or certificate.
    """
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
                hint="Check the API key or the certificate, and what it may do.",
                address=address,
                namespace=client.namespace,
            ) from error
        raise


def is_configured(profile: str | None = None) -> bool:
    """Return whether the settings name a Temporal; without any, it is looked for on this machine."""
    from temporalio.envconfig import ClientConfig

    return "target_host" in ClientConfig.load_client_connect_config(profile)


def _inner_message(text: str) -> str:
    """Return what the SDK's error is about, without the layers around it.

    >>> _inner_message('Failed client connect: tonic::Error(ConnectError(1, Os { code: 111, message: "Connection refused" }))')
    'Connection refused'
    """
    found = _MESSAGE.findall(text)
    return found[-1].strip() if found else text.removeprefix("Failed client connect: ")
