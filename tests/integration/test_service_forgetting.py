"""DELETE: nothing of a forgotten user is used or shown, wherever it lay, at any replica, and after a restart."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.answers.histories import with_newer
from service.parts import Stores
from service.stores.history.base import HistoryUnavailableError, Kept
from service.stores.history.memory import MemoryHistoryStore
from service.stores.rate_limit import MemoryRateLimiter
from service.web.app import create_app
from tests.fake_service import fake_settings, item_id, open_fake, user_id, write_bundle
from tests.fake_statements import fake_statements

USER = user_id(3)
ODD_IDS = ["a/b", "..", ".", "../..", "a//b", "/", "a/history", "50%off", "user?x=1", "user#7", "plus+sign", "a b/ü"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles" / "first")


@contextmanager
def service(bundle: Path, store: MemoryHistoryStore | None = None, **changes: Any) -> Iterator[TestClient]:
    stores = None if store is None else Stores(store, MemoryRateLimiter(lambda: 0.0))
    with TestClient(create_app(fake_settings(bundle, **changes), open_engine=open_fake, stores=stores)) as client:
        yield client


def personal(client: TestClient) -> list[Any]:
    """Everything that the service knows of USER alone; all empty for a stranger."""
    asked = {"user_id": USER, "n_items": 3}
    sequential = client.post("/recommend/sequential", json=asked).json()
    topn = client.post("/recommend/topn", json={**asked, "candidates": [item_id(n) for n in range(8, 20)]}).json()
    explained = client.post("/explain", json={"user_id": USER, "item_id": "i0008"}).json()
    listed = client.get("/users", params={"query": USER}).json()["user_ids"]
    return [
        client.get("/history", params={"user_id": USER}).json()["items"],
        [] if sequential["strategy"] == "popularity" else sequential["items"],
        [] if topn["strategy"] == "popularity" else topn["items"],
        explained["evidence"],
        listed,
    ]


def test_nothing_of_a_forgotten_user_is_used_or_shown_and_a_restart_remembers_it(bundle: Path, tmp_path: Path) -> None:
    with service(bundle, state_dir=tmp_path / "state") as client:
        assert all(personal(client))
        client.post("/interactions", json={"user_id": USER, "item_id": "i0030"})
        assert client.delete(f"/users/{USER}/history").status_code == 204
        assert not any(personal(client))
        assert client.get("/users", params={"query": "u000"}).json()["user_ids"].count(USER) == 0
    with service(bundle, state_dir=tmp_path / "state") as client:
        assert not any(personal(client))
        given = {"user_id": USER, "history": ["i0001"], "n_items": 1}
        assert client.post("/recommend/sequential", json=given).json()["items"][0]["item_id"] == "i0002"
        client.post("/interactions", json={"user_id": USER, "item_id": "i0020"})
        assert [i["item_id"] for i in client.get(f"/users/{USER}/history").json()["items"]] == ["i0020"]
    assert USER not in (tmp_path / "state" / "forgotten").read_text()


def test_by_default_the_marks_lie_under_the_callers_state_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    file = fake_settings(bundle, state_dir=None).marks_file
    assert file.is_relative_to(tmp_path / "home" / "rdrec")
    other = write_bundle(tmp_path / "others" / "first")
    assert fake_settings(other, state_dir=None).marks_file != file


def test_a_forgetting_that_a_restart_would_forget_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with service(bundle, state_dir=tmp_path / "file") as client:
        refused = client.delete(f"/users/{USER}/history")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:rdrec:problem:history-unavailable")
        assert "RDREC_STATE_DIR" in refused.json()["detail"]
        assert client.delete("/users/stranger/history").status_code == 204, "of whom nothing has to be remembered"


def said_of(client: TestClient, item: str) -> dict[str, tuple[int, int]]:
    """Text -> (count, total) of everything that explanations to two other users tell of an item."""
    answers = [client.post("/explain", json={"user_id": user_id(n), "item_id": item}).json() for n in (20, 3)]
    told = {s["text"]: (s["count"], s["total"]) for a in answers for s in a["statements"] if s["about"] == "item"}
    attributes = " ".join(str(a["item_attributes"]) + str(a["caution"]) for a in answers)
    assert all(text in attributes for text in told)
    return told


def test_what_a_forgotten_user_said_is_told_to_nobody_at_any_replica_nor_after_a_restart(tmp_path: Path) -> None:
    """Users 5, 6 and 7 reviewed item 8: «sturdy lid» said 5 and 6, «too small» 6 alone, «works well» 7 alone."""
    bundle = write_bundle(tmp_path / "bundles" / "said", statements=fake_statements(tmp_path / "reviews"))
    marks = tmp_path / "forgotten"
    first, second = MemoryHistoryStore(marks=marks), MemoryHistoryStore(marks=marks)
    with service(bundle, first) as client, service(bundle, second) as replica:
        before = client.post("/explain", json={"user_id": user_id(20), "item_id": "i0008"}).json()
        assert said_of(client, "i0008") == said_of(replica, "i0008") == {"sturdy lid": (2, 3)}
        assert before["caution"] == "One of 3 buyers finds it too small."
        assert client.delete(f"/users/{user_id(6)}/history").status_code == 204
        second.__init__(marks=marks)  # type: ignore[misc]  # what a sync brings
        for each in (client, replica):
            after = each.post("/explain", json={"user_id": user_id(20), "item_id": "i0008"}).json()
            assert after["caution"] is None, "nobody else found it too small"
            assert (
                after["item_attributes"] == "Buyers praise the sturdy lid (1 of 2) and say that it works well (1 of 2)."
            )
        client.delete(f"/users/{user_id(5)}/history")
    with service(bundle, MemoryHistoryStore(marks=marks)) as client:
        assert said_of(client, "i0008") == {"works well": (1, 1)}
        client.delete(f"/users/{user_id(7)}/history")
        last = client.post("/explain", json={"user_id": user_id(20), "item_id": "i0008"}).json()
        assert (last["basis"], last["statements"], last["item_attributes"]) == ("catalogue", [], None)


def test_while_nobody_can_say_who_was_forgotten_nothing_that_was_said_is_told(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundles" / "said", statements=fake_statements(tmp_path / "reviews"))
    store = AwayStore()
    store.away, store.synced = True, False
    with service(bundle, store) as client:
        answer = client.post("/explain", json={"history": ["i0007"], "item_id": "i0008"}).json()
        assert (answer["basis"], answer["item_attributes"], answer["degraded"]) == ("catalogue", None, True)
        store.synced = True
        answer = client.post("/explain", json={"history": ["i0007"], "item_id": "i0008"}).json()
        assert (answer["basis"], answer["degraded"]) == ("statements", False)


class AwayStore(MemoryHistoryStore):
    """Out of reach from when it is told; what it learnt before it still knows."""

    away = False
    synced = True

    async def recent(self, user_id: str, limit: int) -> Kept:
        self._check()
        return await super().recent(user_id, limit)

    async def forget(self, user_id: str, *, in_bundle: bool, log: str | None = None) -> None:
        self._check()
        await super().forget(user_id, in_bundle=in_bundle)

    async def forgotten(self, user_ids: Any) -> set[str]:
        self._check()
        return await super().forgotten(user_ids)

    def may_use_bundle(self, user_id: str) -> bool:
        return self.synced and super().may_use_bundle(user_id)

    def marks(self) -> Set[str] | None:
        return super().marks() if self.synced else None

    def _check(self) -> None:
        if self.away:
            raise HistoryUnavailableError("the store is away")


def test_while_the_store_is_away_forgotten_users_stay_forgotten_and_nobody_is_listed(bundle: Path) -> None:
    store = AwayStore()
    with service(bundle, store) as client:
        client.delete(f"/users/{USER}/history")
        store.away = True
        assert client.get(f"/users/{USER}/history").json()["items"] == []
        answer = client.post("/recommend/sequential", json={"user_id": USER}).json()
        assert (answer["strategy"], answer["history_source"], answer["degraded"]) == ("popularity", "none", True)
        other = client.post("/recommend/sequential", json={"user_id": user_id(4)}).json()
        assert (other["history_source"], other["degraded"]) == ("bundle", True)
        assert client.get("/users").status_code == 503
        assert client.delete(f"/users/{user_id(5)}/history").status_code == 503


def test_a_service_that_never_reached_its_store_uses_nobodys_bundle_history(bundle: Path) -> None:
    store = AwayStore()
    store.away, store.synced = True, False
    with service(bundle, store) as client:
        answer = client.post("/recommend/sequential", json={"user_id": USER, "n_items": 1}).json()
        assert (answer["strategy"], answer["degraded"]) == ("popularity", True)
        given = {"user_id": USER, "history": ["i0001"], "n_items": 1}
        assert client.post("/recommend/sequential", json=given).json()["items"][0]["item_id"] == "i0002"


@pytest.mark.parametrize("user", ODD_IDS)
def test_whoever_can_be_written_can_be_read_and_forgotten(bundle: Path, user: str) -> None:
    with service(bundle) as client:
        assert client.post("/interactions", json={"user_id": user, "item_id": "i0007"}).status_code == 201
        known = client.get("/history", params={"user_id": user}).json()
        assert (known["user_id"], [i["item_id"] for i in known["items"]]) == (user, ["i0007"])
        assert client.delete("/history", params={"user_id": user}).status_code == 204
        assert client.get("/history", params={"user_id": user}).json()["items"] == []


def test_a_slash_in_a_path_is_part_of_the_id(bundle: Path) -> None:
    with service(bundle) as client:
        client.post("/interactions", json={"user_id": "a/b", "item_id": "i0007"})
        assert client.get("/users/a%2Fb/history").json()["user_id"] == "a/b"
        assert client.delete("/users/a%2Fb/history").status_code == 204
        assert client.get("/users/a%2Fb/history").json()["items"] == []


def test_the_bundle_s_history_and_behind_it_what_is_newer() -> None:
    base, made_at = ["a", "b", "a"], 100.0
    assert with_newer(base, [], made_at=made_at) == base
    assert with_newer(base, [("c", 150.0)], made_at=made_at) == [*base, "c"]
    assert with_newer(base, [("b", 90.0), ("c", 95.0)], made_at=made_at) == [*base, "c"], "the bundle was made from b"
    assert with_newer(base, [("b", 101.0)], made_at=made_at) == [*base, "b"], "bought again since"
    assert with_newer(base, [("a", 1.0), ("a", 2.0), ("a", 3.0)], made_at=made_at) == [*base, "a"]


def test_a_new_bundle_brings_its_own_history_and_repeats_nothing(tmp_path: Path) -> None:
    """The store copied nothing of the first bundle: what the second one knows shows at once."""
    first = write_bundle(tmp_path / "bundles" / "first", created_at="2026-01-01T00:00:00Z")
    second = write_bundle(tmp_path / "bundles" / "second", created_at="2026-03-01T00:00:00Z")
    at = 1_769_904_000  # 2026-02-01
    store = MemoryHistoryStore()
    write = {"user_id": USER, "item_id": "i0004", "timestamp": at}
    with service(first, store) as client:
        client.post("/interactions", json=write)
        before = [i["item_id"] for i in client.get(f"/users/{USER}/history").json()["items"]]
    with service(second, store) as client:
        after = [i["item_id"] for i in client.get(f"/users/{USER}/history").json()["items"]]
    base = [item_id(n) for n in range(3, 8)]
    assert before == [*base, "i0004"]
    assert after == base


def test_a_batch_of_interactions_is_kept_in_the_order_of_time(bundle: Path) -> None:
    purchases = [("u", "i0003", 30.0), ("v", "i0009", 5.0), ("u", "i0001", 10.0), ("u", "new", 20.0)]
    body = {"interactions": [{"user_id": u, "item_id": i, "timestamp": t} for u, i, t in purchases]}
    with service(bundle) as client:
        answer = client.post("/interactions/batch", json=body)
        assert answer.status_code == 200
        assert [(r["status"], r["recorded"], r["known_to_model"]) for r in answer.json()["results"]] == [
            (201, True, True), (201, True, True), (201, True, True), (201, True, False),
        ]  # fmt: skip
        items = client.get("/users/u/history").json()["items"]
        assert [item["item_id"] for item in items] == ["i0001", "new", "i0003"]
        again = client.post("/interactions/batch", json=body).json()["results"]
        assert [result["recorded"] for result in again] == [False] * 4
        untimed = {"interactions": [{"user_id": f"w{n % 10}", "item_id": item_id(n % 40)} for n in range(1000)]}
        headers = {"Idempotency-Key": "import-7"}
        first, second = (client.post("/interactions/batch", json=untimed, headers=headers) for _ in range(2))
        assert all(result["recorded"] for result in first.json()["results"])
        kept = client.get("/users/w3/history", params={"limit": 1000}).json()["items"]
        assert [item["item_id"] for item in kept] == [item_id(n % 40) for n in range(3, 1000, 10)]
        assert not any(result["recorded"] for result in second.json()["results"])
        too_many = {"interactions": [*untimed["interactions"], untimed["interactions"][0]]}
        assert client.post("/interactions/batch", json=too_many).status_code == 422


class HalfStore(MemoryHistoryStore):
    async def append(self, user_id: str, writes: Any, log: Any = ()) -> list[bool]:
        if user_id == "lost":
            raise HistoryUnavailableError("the store is away")
        return await super().append(user_id, writes)


def test_a_write_of_a_batch_that_fails_says_so_and_fails_alone(bundle: Path) -> None:
    body = {"interactions": [{"user_id": user, "item_id": "i0001"} for user in ("kept", "lost", "kept too")]}
    with service(bundle, HalfStore()) as client:
        results = client.post("/interactions/batch", json=body).json()["results"]
    assert [result["status"] for result in results] == [201, 503, 201]
    assert results[1]["problem"]["type"] == "urn:rdrec:problem:history-unavailable"
