"""RDREC_REDIS_URL -> a redis-py client: one server, Sentinel or Cluster. Knows URLs and options, sends no commands.

    redis://[user:password@]host[:6379][/db]            rediss:// for TLS
    unix:///path/to/socket[?db=0]
    redis+sentinel://[user:password@]h1[:26379],h2/service[/db]     rediss+sentinel:// for TLS
    redis+cluster://[user:password@]h1[:6379],h2                    rediss+cluster:// for TLS

Query options are redis-py's (`ssl_ca_certs=...`); Sentinel also takes `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from redis.asyncio import Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from rdrec_core.errors import InputError

FIELD = "RDREC_REDIS_URL"
IDLE_CHECK_S = 15

Options = dict[str, Any]
_HOSTS = re.compile(r"(\[[^]]*\]|[^:@/?#,\[\]]+)(:\d+)?(,(\[[^]]*\]|[^:@/?#,\[\]]+)(:\d+)?)*([/?#]|$)")
"""A URL without a login: an @ further on belongs to an option."""


@dataclass(frozen=True, slots=True)
class RedisClient:
    """A client that connects when first used, and how to release what it holds."""

    execute: Callable[..., Awaitable[Any]]
    close: Callable[[], Awaitable[None]]
    reconnect: Callable[[], Awaitable[None]] | None = None
    """Drop idle connections, so that the next ones ask anew who has the address; None where that is done anyway."""
    is_cluster: bool = False
    """Whether keys in different slots are on different servers, so that no script may name both."""


def redis_client(url: str, *, timeout_s: float, max_connections: int) -> RedisClient:
    """Client for the URL; nothing is sent yet. Raises InputError for a URL that it cannot read, without quoting it.

    timeout_s bounds connecting and each answer. Nothing is retried inside: a write must not be sent twice unasked. A
    connection that was idle for IDLE_CHECK_S is pinged before it is used.
    """
    options: Options = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": IDLE_CHECK_S,
        "max_connections": max_connections,
        "decode_responses": True,
        "encoding_errors": "surrogatepass",
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    transport, _, topology = url.partition("://")[0].lower().partition("+")
    _refuse_odd_login(url)
    try:
        _refuse_odd_database(url, topology)
        if topology == "" and transport in {"redis", "rediss", "unix"}:
            client: Redis = Redis.from_url(url, **options)
            return RedisClient(client.execute_command, client.aclose, partial(_drop_idle, client))
        if topology == "sentinel" and transport in {"redis", "rediss"}:
            return _sentinel(url, options)
        if topology == "cluster" and transport in {"redis", "rediss"}:
            return _cluster(url, options)
    except ValueError as error:  # its text may hold the URL, and so the password
        raise InputError(f"{FIELD} has a port, database or option that cannot be read", field=FIELD) from error
    raise InputError(
        f"{FIELD} must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://", field=FIELD
    )


async def _drop_idle(client: Redis) -> None:
    await client.connection_pool.disconnect(inuse_connections=False)


def _refuse_odd_login(url: str) -> None:
    """A password with characters that mean something in URLs is read as a part of something else, or cut."""
    scheme, _, rest = url.partition("://")
    login, at, _ = rest.rpartition("@")
    if at and scheme.lower() != "unix" and not _HOSTS.match(rest) and (odd := sorted(set("/?#[] ") & set(login))):
        raise InputError(
            f"{FIELD} has {' '.join(odd)!r} before the last @: percent-encode user and password (/ is %2F, # is %23)",
            field=FIELD,
        )


def _refuse_odd_database(url: str, topology: str) -> None:
    parts, _ = _apart(url)
    path = parts.path.strip("/")
    database = path.partition("/")[2] if topology == "sentinel" else path
    if (
        parts.scheme.partition("+")[0] in {"redis", "rediss"}
        and topology != "cluster"
        and database
        and not database.isdecimal()
    ):
        raise InputError(f"{FIELD} names the database {database!r}, which is not a number", field=FIELD)


def _apart(url: str) -> tuple[SplitResult, list[str]]:
    """The URL with `host` in place of its hosts, and these: the standard library reads one host, newer versions no
    address in brackets behind another.
    """
    scheme, colon, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    login, at, hosts = authority.rpartition("@")
    return urlsplit(f"{scheme}{colon}{login}{at}host{rest[len(authority) :]}"), hosts.split(",")


def _cluster(url: str, options: Options) -> RedisClient:
    hosts, from_url = _hosts_and_options(url, default_port=6379)
    nodes = [ClusterNode(host, port) for host, port in hosts]
    # A moved slot is patched alone: reading the whole map again would cut the connections of requests under way.
    cluster = RedisCluster(startup_nodes=nodes, reinitialize_steps=0, **options, **from_url)

    async def execute(*words: Any) -> Any:
        await cluster.initialize()  # no round trip once the map is known; without it the first command goes anywhere
        return await cluster.execute_command(*words)

    return RedisClient(execute, cluster.aclose, is_cluster=True)


def _sentinel(url: str, options: Options) -> RedisClient:
    hosts, from_url = _hosts_and_options(url, default_port=26379)
    service, _, database = _apart(url)[0].path.strip("/").partition("/")
    if not service:
        raise InputError(f"{FIELD} must name the Sentinel service: redis+sentinel://host/service", field=FIELD)
    login = {key: from_url.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    tls = {name: value for name, value in from_url.items() if name.startswith("ssl")}
    from_url["db"] = int(database or 0)
    managed = {**options, **from_url}
    sentinel = Sentinel(hosts, sentinel_kwargs={**options, **tls, **login}, **managed)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(service)

    async def close() -> None:
        await asyncio.gather(master.aclose(), *(one.aclose() for one in sentinel.sentinels))

    return RedisClient(master.execute_command, close)


def _hosts_and_options(url: str, *, default_port: int) -> tuple[list[tuple[str, int]], Options]:
    """Split `user:password@h1:port,h2`; redis-py reads all but the list of hosts."""
    parts, hosts = _apart(url)
    addresses = [urlsplit(f"//{host}") for host in hosts]
    if not all(address.hostname for address in addresses):
        raise InputError(f"{FIELD} must name at least one host, separated by commas", field=FIELD)
    transport = parts.scheme.partition("+")[0]
    one = urlunsplit((transport, parts.netloc, "", parts.query, ""))
    options: Options = dict(parse_url(one))
    del options["host"]
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return [(str(address.hostname), address.port or default_port) for address in addresses], options
