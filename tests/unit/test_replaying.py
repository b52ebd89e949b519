"""A log against a service: everything in its order and at its time, and what the service refused is told."""

import json
from pathlib import Path

import httpx
import pytest

from training.cli import main
from training.refreshing import replaying
from training.refreshing.replaying import ReplayError, log_of, play


def write(path: Path, *records: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def event(number: int, at: float, kind: str = "purchase", **more: object) -> dict:
    return {"event_id": f"e{number}", "user_id": "u", "item_id": f"i{number}", "event": kind, "timestamp": at, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path / "days" / "events-1.jsonl",
        event(1, 1e9), event(2, 1e9 + 10, "view", context={"page": "search"}), event(3, 1e9 + 20),
        {"event": "forget", "user_id": "u", "received": 1e9 + 21},
    )  # fmt: skip
    write(tmp_path / "days" / "items-1.jsonl", {"item_id": "i3", "title": "New", "arrived": 1e9 + 15})
    return tmp_path / "days"


class Service:
    """Notes every request with the time that passed; refuses item `bad` of a batch of interactions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seen = 0.0, []
        transport = httpx.MockTransport(self.answer)
        monkeypatch.setattr(
            replaying.httpx, "Client", lambda **options: _plain_client(transport=transport, **options)
        )  # fmt: skip

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.seen.append((round(self.now, 3), request.url.path, body, request.headers.get("Authorization")))
        one = {"status": 201, "recorded": True}
        if request.url.path == "/items/batch":
            return httpx.Response(200, json={"results": [{"status": 201} for _ in body["items"]]})
        bad = {"status": 422, "problem": {"title": "Invalid request"}}
        return httpx.Response(
            200, json={"results": [bad if e["item_id"] == "bad" else one for e in body["interactions"]]}
        )


_plain_client = httpx.Client


def test_events_and_items_come_in_their_order_at_their_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    items = [json.loads(line) for line in (folder / "items-1.jsonl").read_text().splitlines()]
    sent = play(log_of(folder, items), "http://shop", speed=10, key="k", clock=lambda: service.now, sleep=service.sleep)
    assert [(at, path) for at, path, _, _ in service.seen] == [
        (0.0, "/interactions/batch"), (1.0, "/interactions/batch"), (1.5, "/items/batch"), (2.0, "/interactions/batch"),
    ]  # fmt: skip
    _, _, body, key = service.seen[1]
    assert key == "Bearer k"
    assert body["interactions"] == [
        {"user_id": "u", "item_id": "i2", "event": "view", "timestamp": 1e9 + 10, "quantity": 1,
         "context": {"page": "search"}}
    ]  # fmt: skip
    assert service.seen[2][2] == {"items": [{"item_id": "i3", "title": "New"}]}
    assert (sent.n_items, sent.n_events) == (1, 3)


def test_at_once_what_stands_together_goes_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    write(folder / "events-2.jsonl", event(4, 1e9 + 30), event(5, 1e9 + 31) | {"item_id": "bad"})
    sent = play(log_of(folder, [], kinds={"purchase"}), "http://shop", speed=0)
    assert len(service.seen) == 1
    assert (sent.n_events, dict(sent.problems)) == (3, {"Invalid request": 1})


def test_times_may_be_moved_to_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying.time, "time", lambda: 2e9)
    moved = log_of(folder, [], to_now=True)
    assert [each.at for each in moved] == [2e9 - 20, 2e9 - 10, 2e9]
    assert [each.event["timestamp"] for each in moved if each.event] == [2e9 - 20, 2e9 - 10, 2e9]


def test_a_service_that_does_not_answer_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ReplayError):
        play(log_of(folder, []), "http://127.0.0.1:1", speed=0)
    assert main(["replay", str(folder), "--url", "http://127.0.0.1:1"]) == 2
    assert "127.0.0.1:1" in capsys.readouterr().err
