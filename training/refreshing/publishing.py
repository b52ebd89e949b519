"""A bundle into service: every replica opens it, says so, and then the link leads to it, which a restart follows.

Where one replica refuses the bundle, those that had taken it take the former one back. Knows HTTP and links, neither
why the bundle should be served nor what is in it.
"""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from rdrec_core.errors import RDRecError
from rdrec_core.replacing import replacing_link
from training.refreshing.settings import Replicas

_TRIES = 3


class PublishError(RDRecError):
    """Not every replica serves the bundle; the message says which, and what the others serve."""


class RefusedError(PublishError):
    """A replica refuses the bundle; the others serve the former one again."""


def addresses(replicas: Replicas) -> list[str]:
    """The base URL of each replica. Raises PublishError for a name that DNS does not know."""
    if replicas.dns is None:
        return [url.rstrip("/") for url in replicas.urls]
    name = replicas.dns if "://" in replicas.dns else f"http://{replicas.dns}"
    parts = urlsplit(name)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PublishError(f"replicas.dns: {parts.hostname} is not known: {error}") from error
    hosts = sorted({str(entry[4][0]) for entry in found})
    port = f":{parts.port}" if parts.port else ""
    return [
        urlunsplit((parts.scheme, (f"[{host}]" if ":" in host else host) + port, "", "", "")) for host in hosts
    ]  # fmt: skip


def publish(bundle: Path, version: str, former: Path | None, link: Path, replicas: Replicas) -> list[str]:
    """Have every replica serve the bundle, then lead the link to it; returns the replicas.

    The bundle's folder lies in the bundle root, where replicas find it by its name. Raises PublishError where a replica
    cannot be reached (repeat it), RefusedError where one refuses the bundle: the others then go back to the former one.
    """
    headers = {}
    if replicas.key_file is not None:
        headers["Authorization"] = f"Bearer {replicas.key_file.read_text(encoding='utf-8').strip()}"
    found = addresses(replicas)
    taken: list[str] = []
    with httpx.Client(headers=headers, timeout=replicas.timeout_s) as client:
        for url in found:
            try:
                _serve(client, url, bundle.name, version)
            except RefusedError as error:
                if former is not None and former.parent.resolve() == bundle.parent.resolve():
                    for other in taken:
                        _post(client, other, former.name)
                raise RefusedError(f"{url} refuses {bundle.name}: {error}") from error
            taken.append(url)
    lead_to(link, bundle)
    return found


def _serve(client: httpx.Client, url: str, name: str, version: str) -> None:
    if _version(client, url) == version:
        return
    answer = _post(client, url, name)
    if answer.status_code == httpx.codes.CONFLICT:
        raise RefusedError(answer.json().get("detail", "bundle-refused"))
    if answer.is_error:
        raise PublishError(f"POST {url}/admin/bundle: {answer.status_code} {answer.text[:300]}")
    served = _version(client, url)
    if served != version:
        raise PublishError(f"{url} serves {served}, not {version}")


def _post(client: httpx.Client, url: str, name: str) -> httpx.Response:
    return _asked(client, "POST", f"{url}/admin/bundle", json={"path": name})


def _version(client: httpx.Client, url: str) -> str:
    answer = _asked(client, "GET", f"{url}/v1/model")
    if answer.is_error:
        raise PublishError(f"GET {url}/v1/model: {answer.status_code} {answer.text[:300]}")
    return str(answer.json()["model_version"])


def _asked(client: httpx.Client, method: str, url: str, json: object = None) -> httpx.Response:
    cause: httpx.HTTPError | None = None
    for _ in range(_TRIES):
        try:
            return client.request(method, url, json=json)
        except httpx.TransportError as error:
            cause = error
    raise PublishError(f"{method} {url}: {cause}; run the refresh again, it goes on here") from cause


def lead_to(link: Path, folder: Path) -> None:
    """Have the link lead to a folder, in one step. Raises PublishError where something else has its name."""
    if link.exists() and not link.is_symlink():
        raise PublishError(
            f"{link} is a folder, not a link; move it away, so that a link may lead to the newest bundle"
        )
    if link.resolve() != folder.resolve():
        replacing_link(link, folder)
