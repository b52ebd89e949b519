"""Which URLs are read, how, and what is said of the others."""

from __future__ import annotations

import pytest
from redis.exceptions import ReadOnlyError

from rdrec_core.errors import InputError
from service.stores.breaker import CircuitBreaker
from service.stores.redis_gateway import RedisGateway, RedisUnavailableError
from service.stores.redis_url import RedisClient, _hosts_and_options, redis_client


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1", "redis://user:p%40ss@127.0.0.1:6390/2", "rediss://cache.shop:6380", "unix:///run/redis.sock",
        "redis+sentinel://a,b:26380/shop", "redis+sentinel://u:p@a/shop/3?sentinel_password=x",
        "redis+cluster://a:7000,b:7001", "rediss+cluster://u:p@a,[::1]:7002",
    ],
)  # fmt: skip
async def test_readable(url: str) -> None:
    client = redis_client(url, timeout_s=0.05, max_connections=2)
    await client.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://secret@host", "must begin with redis://"),
        ("secret", "must begin with redis://"),
        ("unix+cluster:///secret", "must begin with redis://"),
        ("redis+sentinel://u:secret@a,b", "must name the Sentinel service"),
        ("redis+cluster://u:secret@", "at least one host"),
        ("redis+cluster://u:secret@a,,b", "at least one host"),
        ("redis://u:secret@host:port", "cannot be read"),
        ("redis+sentinel://u:secret@a/shop/first", "database 'first', which is not a number"),
        ("redis://u:secret@h:6379/zero", "database 'zero', which is not a number"),
        ("rediss://:abc+secret/ghi=@h:6380/0", "percent-encode user and password"),
        ("redis://alice:!#$secret^&*()[]@h:6379/0", "percent-encode user and password"),
        ("redis://:sec?secret@h", "percent-encode user and password"),
        ("redis+cluster://u:secret@a:99999999", "cannot be read"),
    ],
)
def test_unreadable_says_what_would_be_right_and_never_the_password(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        RedisGateway.open(url, timeout_s=0.05, max_connections=2)
    assert error.value.field == "RDREC_REDIS_URL"
    assert "secret" not in str(error.value)


def test_hosts_ports_login_and_options_are_taken_apart() -> None:
    hosts, options = _hosts_and_options(
        "rediss+cluster://u:p%2Fq@a,b:7,[::1]:8?ssl_ca_certs=/ca.pem", default_port=6379
    )
    assert hosts == [("a", 6379), ("b", 7), ("::1", 8)]
    assert options == {"username": "u", "password": "p/q", "ssl": True, "ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize(
    ("url", "password", "database"),
    [
        ("redis://:p%40ss%2Fw%23rd@h:6379/0", "p@ss/w#rd", 0),
        ("redis://:p@ss@h:6379/0", "p@ss", 0),
        ("redis://:abc+def=@h:6379/3", "abc+def=", 3),
        ("redis://[::1]:6379/0?client_name=a@b", None, 0),
        ("redis://h:6379/1?client_name=a@b", None, 1),
        ("redis://h:6379/0?protocol=3", None, 0),
    ],
)
async def test_passwords_and_databases_are_what_the_url_says(url: str, password: str | None, database: int) -> None:
    client = redis_client(url, timeout_s=0.05, max_connections=2)
    options = client.execute.__self__.connection_pool.connection_kwargs  # type: ignore[attr-defined]
    assert (options.get("password"), options.get("db", 0)) == (password, database)
    await client.close()


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis+sentinel://:p%40ss@s1,s2:26380/mymaster/2", "p@ss"), ("redis+sentinel://:p,w@s1,s2/mymaster", "p,w"),
        ("redis+cluster://:p%2Cw@h1,h2:7000", "p,w"), ("rediss+cluster://h1:7000,h2:7001?ssl_cert_reqs=none", None),
        ("redis+cluster://[::1]:7000,[::1]:7001", None),
    ],
)  # fmt: skip
def test_passwords_beside_several_hosts(url: str, password: str | None) -> None:
    _, options = _hosts_and_options(url, default_port=6379)
    assert options.get("password") == password
    RedisGateway.open(url, timeout_s=0.05, max_connections=2)


async def test_a_server_that_became_a_replica_is_left_for_who_has_the_address_now() -> None:
    """READONLY for ever, otherwise: the connections to the old primary are never cut."""
    dropped = []

    async def execute(*words: object) -> object:
        raise ReadOnlyError("READONLY You can't write against a read only replica.")

    async def nothing() -> None: ...

    async def reconnect() -> None:
        dropped.append(True)

    client = RedisClient(execute, nothing, reconnect)
    gateway = RedisGateway(client, CircuitBreaker(lambda: 0.0), timeout_s=1.0, max_connections=2)
    with pytest.raises(RedisUnavailableError, match="replica"):
        await gateway.command("SET", "k", "v")
    assert dropped == [True]
