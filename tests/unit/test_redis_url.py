"""Which URLs are read, how, and what is said of the others."""

from __future__ import annotations

import pytest

from rdrec_core.errors import InputError
from service.stores.redis_gateway import RedisGateway
from service.stores.redis_url import _hosts_and_options, redis_client


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
        ("redis+sentinel://u:secret@a/shop/first", "cannot be read"),
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
