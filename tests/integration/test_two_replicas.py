"""Two real processes of the service on one real Redis, over HTTP: nothing lost, nothing doubled, faults told."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from redis import Redis

from rdrec_client import AsyncRDRecClient, ProblemError, RDRecClient, RetryPolicy
from tests.fake_service import N_ITEMS, N_USERS, base_history, item_id, user_id, write_bundle
from tests.redis_process import RedisProcess, ask, running_redis
from tests.replica import Replica, running_replica
from tests.service_process import HTTP

USERS, WRITES_A_USER, WRITERS = 100, int(os.environ.get("RDREC_TEST_WRITES", "6")), 16
"""RDREC_TEST_WRITES=100 makes it ten thousand."""
RECOVERY_S = 5.0
"""The promise: within this time of Redis coming back the service uses it again."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running_redis(tmp_path_factory.mktemp("redis"), "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture(scope="module")
def replicas(redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, Replica]]:
    folder = tmp_path_factory.mktemp("replicas")
    bundle = write_bundle(folder / "bundle")
    # 200 ms instead of 50: with two servers, Redis and the test on two cores a lone answer may take longer than 50.
    settings = {"redis_url": redis.url, "redis_timeout_ms": 200, "timeout_ms": 20_000, "access_log": "false"}
    with (
        running_replica(bundle, folder / "a.log", **settings) as one,
        running_replica(bundle, folder / "b.log", **settings) as two,
    ):
        yield one, two


async def test_concurrent_writes_for_a_hundred_users(replicas: tuple[Replica, Replica], redis: RedisProcess) -> None:
    left = iter([(user, number) for number in range(WRITES_A_USER) for user in range(USERS)])

    async def writer() -> list[int]:
        """Takes writes until none is left; its own connections, as another process would have.

        Every fifth is sent to both replicas at once, as by a caller that lost the first answer.
        """
        new = []
        clients = [AsyncRDRecClient(replica.url, timeout_s=20.0, retry=RetryPolicy(attempts=8)) for replica in replicas]
        for user, number in left:
            asked = clients if number % 5 == 0 else [clients[number % 2]]
            item, key = item_id(number % N_ITEMS), f"k{number}"
            answers = await asyncio.gather(
                *(client.record(f"w{user}", item, timestamp=number, idempotency_key=key) for client in asked)
            )
            new.append(sum(answer.recorded for answer in answers))
        for client in clients:
            await client.close()
        return new

    recorded = [new for share in await asyncio.gather(*(writer() for _ in range(WRITERS))) for new in share]
    assert len(recorded) == USERS * WRITES_A_USER
    assert max(recorded) == 1, "0 is a write whose first answer was late, so that the second try found it done"
    expected = Counter(item_id(number % N_ITEMS) for number in range(WRITES_A_USER))
    with RDRecClient(replicas[0].url, timeout_s=20.0) as one, RDRecClient(replicas[1].url, timeout_s=20.0) as two:
        for user in range(USERS):
            first, second = one.history(f"w{user}", limit=1000), two.history(f"w{user}", limit=1000)
            assert first == second
            assert first.history_source == "redis"
            assert Counter(item.item_id for item in first.items) == expected
    entries = Redis.from_url(redis.url, decode_responses=True).xrange("rdrec:{%events}:log")
    logged = [json.loads(fields["record"])["event_id"] for _, fields in entries]
    assert len(logged) == len(set(logged)) == USERS * WRITES_A_USER, "each event is in the log once"


async def test_first_writes_at_both_replicas_seed_the_base_once(replicas: tuple[Replica, Replica]) -> None:
    clients = [AsyncRDRecClient(replica.url, timeout_s=20.0) for replica in replicas]
    for user in range(N_USERS - 2):
        await asyncio.gather(
            *(client.record(user_id(user), item_id(30 + n), timestamp=float(n)) for n, client in enumerate(clients))
        )
        items = [item.item_id for item in (await clients[0].history(user_id(user))).items]
        assert items[:5] == [item_id(index) for index in base_history(user)]
        assert sorted(items[5:]) == [item_id(30), item_id(31)]
    for client in clients:
        await client.close()


def test_what_is_told_to_one_moves_the_answers_of_the_other(replicas: tuple[Replica, Replica]) -> None:
    with RDRecClient(replicas[0].url, timeout_s=20.0) as one, RDRecClient(replicas[1].url, timeout_s=20.0) as two:
        user = user_id(2)
        kept = one.record(user, item_id(20))
        assert (kept.recorded, kept.history_source, kept.known_to_model) == (True, "redis", True)
        answer = two.sequential(user, n_items=1)
        assert (answer.items[0].item_id, answer.history_source) == (item_id(21), "redis")
        assert one.explain(user_id(1), item_id(9)) == two.explain(user_id(1), item_id(9))


def test_a_forgotten_user_is_forgotten_at_both_and_the_base_stays_away(replicas: tuple[Replica, Replica]) -> None:
    with RDRecClient(replicas[0].url, timeout_s=20.0) as one, RDRecClient(replicas[1].url, timeout_s=20.0) as two:
        user = user_id(N_USERS - 2)
        assert len(one.history(user).items) == 5
        one.forget(user)
        for client in (one, two):
            assert client.history(user).items == ()
            assert client.history(user).history_source == "redis"
        two.record(user, item_id(3))
        assert [item.item_id for item in one.history(user).items] == [item_id(3)]


def test_what_sells_and_what_became_of_a_list_are_the_same_at_both(replicas: tuple[Replica, Replica]) -> None:
    with RDRecClient(replicas[0].url, timeout_s=20.0) as one, RDRecClient(replicas[1].url, timeout_s=20.0) as two:
        for number in range(40):
            one.record(f"buyer {number}", item_id(17), timestamp=time.time())
        deadline = time.monotonic() + 20  # counts are shared once a second and read again every two
        while two.popular(window="1h", n_items=1).items[0].item_id != item_id(17):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        shown = one.sequential(user_id(5), n_items=3)
        told = shown.impression_id, shown.items[2].item_id, "purchase"
        assert (two.give_feedback(*told).rank, one.give_feedback(*told).recorded) == (3, False)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_without_redis_answers_are_degraded_and_writes_refused(
    replicas: tuple[Replica, Replica], redis: RedisProcess, fault: str
) -> None:
    user = user_id(4)
    with (
        RDRecClient(replicas[0].url, timeout_s=20.0, retry=RetryPolicy(attempts=1)) as client,
        RDRecClient(replicas[0].url, timeout_s=20.0) as patient,
    ):
        for n in range(3):
            patient.record(user, item_id(20 + n), idempotency_key=f"before-{fault}-{n}")
        before = client.history(user)
        assert (before.history_source, before.degraded) == ("redis", False)
        if fault == "killed":
            redis.kill()
        else:
            redis.freeze()
        try:
            for _ in range(8):
                known = client.sequential(user, n_items=3)
                assert (known.history_source, known.degraded) == ("bundle", True)
                assert known.items[0].item_id == item_id(base_history(4)[-1] + 1), "computed from the base history"
                unknown = client.sequential("stranger", n_items=3)
                assert (unknown.history_source, unknown.degraded) == ("none", True)
                given = client.sequential(user, history=[item_id(30)], n_items=1)
                assert (given.history_source, given.degraded) == ("request", False)
                assert given.items[0].item_id == item_id(31)
                with pytest.raises(ProblemError) as refused:
                    client.record(user, item_id(29), idempotency_key=f"during-{fault}")
                assert (refused.value.status, refused.value.slug) == (503, "history-unavailable")
                assert refused.value.retry_after_s is not None
                assert refused.value.retry_after_s >= 1
                with pytest.raises(ProblemError):
                    client.forget(user)
            assert client.is_ready(), "a replica without Redis still answers; taking it away would help nobody"
            metrics = HTTP.get(f"{replicas[0].url}/metrics").text
            assert 'rdrec_history_store_available{store="redis"} 0.0' in metrics
        finally:
            if fault == "killed":
                redis.start()
            else:
                redis.thaw()
        deadline = time.monotonic() + RECOVERY_S
        while (now := client.history(user)).degraded:
            assert time.monotonic() < deadline, "not recovered in time"
            time.sleep(0.1)
        assert now.history_source == "redis"
        metrics = HTTP.get(f"{replicas[0].url}/metrics").text
        assert 'rdrec_breaker_state{state="closed"} 1.0' in metrics
        assert "rdrec_degraded_answers_total" in metrics
        # A frozen Redis reads afterwards what it was sent: a refused write may have been kept, as its caller was told.
        kept = [item.item_id for item in now.items]
        assert kept[: len(before.items)] == [item.item_id for item in before.items]
        assert kept[len(before.items) :] in ([], [item_id(29)])
        patient.record(user, item_id(29), idempotency_key=f"during-{fault}")
        assert [item.item_id for item in patient.history(user).items] == [
            *(i.item_id for i in before.items),
            item_id(29),
        ]


def test_full_redis_refuses_writes_and_answers_stay_fresh(
    replicas: tuple[Replica, Replica], redis: RedisProcess
) -> None:
    with (
        RDRecClient(replicas[1].url, timeout_s=20.0, retry=RetryPolicy(attempts=1)) as client,
        RDRecClient(replicas[1].url, timeout_s=20.0) as patient,
    ):
        patient.record("full", item_id(1))
        ask(redis.port, "CONFIG", "SET", "maxmemory", "1")
        try:
            with pytest.raises(ProblemError, match="Redis is full") as refused:
                client.record("full", item_id(2))
            assert refused.value.status == 503
            answer = client.sequential("full", n_items=1)
            assert (answer.history_source, answer.degraded) == ("redis", False)
        finally:
            ask(redis.port, "CONFIG", "SET", "maxmemory", "0")
        assert patient.record("full", item_id(2)).recorded


def test_items_put_at_one_replica_are_recommended_at_both_also_after_kills(
    replicas: tuple[Replica, Replica], redis: RedisProcess
) -> None:
    like, limit = [item_id(1)], 100
    with RDRecClient(replicas[0].url, timeout_s=20.0) as one, RDRecClient(replicas[1].url, timeout_s=20.0) as two:

        def listed(client: RDRecClient) -> set[str]:
            return {item.item_id for item in client.similar(like, n_items=limit).items}

        def within_s(client: RDRecClient, wanted: set[str], unwanted: str = "") -> None:
            deadline = time.monotonic() + RECOVERY_S
            while not wanted <= listed(client) or unwanted in listed(client):
                assert time.monotonic() < deadline, (wanted - listed(client), unwanted)
                time.sleep(0.05)

        before = listed(one)
        first = {f"new-{n}" for n in range(6)}
        for number, item in enumerate(sorted(first)):
            (one, two)[number % 2].put_item(item, title=f"Red thing {number}")
        within_s(one, first)
        within_s(two, first)
        replicas[1].kill()
        one.put_item("new-6", title="Red thing, put while the other was away")
        one.patch_item("new-0", available=False)
        replicas[1].start()  # which reads all of it before it answers
        assert first - {"new-0"} | {"new-6"} <= listed(two)
        assert "new-0" not in listed(two)
        redis.kill()
        try:
            impatient = one.with_options(retry=RetryPolicy(attempts=1))
            with pytest.raises(ProblemError) as refused:
                impatient.put_item("new-7", title="Red")
            assert (refused.value.status, refused.value.slug) == (503, "catalogue-unavailable")
            assert "new-6" in listed(one) & listed(two)
        finally:
            redis.start()
        one.with_options(retry=RetryPolicy(attempts=20)).put_item("new-7", title="Red again")
        within_s(two, {"new-6", "new-7"})
        two.delete_item("new-6")
        within_s(one, {"new-7"}, unwanted="new-6")
        for item in (*first, "new-7"):
            one.delete_item(item)
        assert listed(one) == before
