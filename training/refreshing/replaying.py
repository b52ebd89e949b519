"""A log against a running service, as fast as it happened or faster: for trials, tests and demonstrations.

Knows the service's bodies for items and interactions, and nothing of models.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from rdrec_core.errors import RDRecError
from training.data.event_log import FORGET, log_files, read_log
from training.data.values import Notes

AT_ONCE = 1000
"""Events of a request."""


class ReplayError(RDRecError):
    """The service does not answer, or refuses an item."""


@dataclass(frozen=True)
class Happening:
    """An item that arrives, or an event."""

    at: float
    item: dict[str, Any] | None = None
    event: dict[str, Any] | None = None


@dataclass
class Sent:
    """What the service took; problems of single events by their title."""

    n_items: int = 0
    n_events: int = 0
    n_known: int = 0
    problems: Counter[str] = field(default_factory=Counter)


def log_of(
    path: Path, items: list[dict[str, Any]], *, kinds: Collection[str] | None = None, to_now: bool = False
) -> list[Happening]:
    """Everything in the order of time, items before events of their moment. to_now: times moved, the last to now."""
    found = [Happening(float(item.get("arrived") or 0.0), item=item) for item in items]
    for file in log_files(path):
        for row in read_log(file, Notes()).iter_rows(named=True):
            if row["event"] == FORGET or (kinds is not None and row["event"] not in kinds):
                continue
            context = None if row["context"] is None else orjson.loads(row["context"])
            event = {name: row[name] for name in ("user_id", "item_id", "event", "timestamp", "quantity")}
            found.append(Happening(row["timestamp"], event=event | ({} if context is None else {"context": context})))
    found.sort(key=lambda each: (each.at, each.event is not None))
    last = max((each.at for each in found if each.event is not None), default=0.0)
    shift = time.time() - last if to_now else 0.0
    if not shift:
        return found
    return [
        Happening(e.at + shift, e.item, e.event and e.event | {"timestamp": e.event["timestamp"] + shift})
        for e in found
    ]  # fmt: skip


def play(
    happenings: list[Happening],
    url: str,
    *,
    speed: float,
    key: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Send everything when its time has come; speed 0 waits for nothing. Raises ReplayError where that is in vain."""
    sent = Sent()
    if not happenings:
        return sent
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    events = [each.at for each in happenings if each.event is not None]
    began, first = clock(), events[0] if events else happenings[0].at  # items may be older than the log
    with httpx.Client(base_url=url, headers=headers, timeout=60.0) as client:
        for batch in _moments(happenings, speed):
            if speed > 0:
                sleep(max(0.0, began + (batch[0].at - first) / speed - clock()))
            if batch[0].item is not None:
                _put(client, [each.item for each in batch if each.item is not None], sent)
            else:
                _send(client, [each.event for each in batch if each.event is not None], sent)
    return sent


def _moments(happenings: list[Happening], speed: float) -> Iterator[list[Happening]]:
    """Neighbours of one kind that are due within a tenth of a second, AT_ONCE at most."""
    batch: list[Happening] = []
    for each in happenings:
        together = batch and (batch[0].item is None) == (each.item is None) and len(batch) < AT_ONCE
        if batch and not (together and (speed == 0 or each.at - batch[0].at <= 0.1 * speed)):
            yield batch
            batch = []
        batch.append(each)
    yield batch


def _put(client: httpx.Client, items: list[dict[str, Any]], sent: Sent) -> None:
    bodies = [{name: value for name, value in item.items() if name != "arrived"} for item in items]
    answer = _post(client, "/items/batch", {"items": bodies})
    for item, result in zip(items, answer["results"], strict=True):
        if result["status"] >= 400:
            raise ReplayError(
                f"item {item['item_id']}: {result['problem'].get('detail') or result['problem']['title']}"
            )
    sent.n_items += len(items)


def _send(client: httpx.Client, events: list[dict[str, Any]], sent: Sent) -> None:
    answer = _post(client, "/interactions/batch", {"interactions": events})
    for result in answer["results"]:
        if result["status"] >= 400:
            sent.problems[result["problem"]["title"]] += 1
        else:
            sent.n_events += 1
            sent.n_known += not result["recorded"]


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = client.post(path, json=body)
    except httpx.HTTPError as error:
        raise ReplayError(f"{client.base_url}{path.lstrip('/')}: {error}") from error
    if answer.is_error:
        raise ReplayError(f"{path}: {answer.status_code} {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found
