"""What a kind of event means here, and the line that it leaves in the log. Knows settings and records, no store.

A line is a JSON object: event_id, user_id, item_id, event, timestamp, received, quantity, context, known_to_model; or
{"event": "forget", "user_id"} with event_id, timestamp and received, which takes back every line of the user before it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rdrec_core.errors import InputError
from service.settings import Settings
from service.stores.event_log import LogLine
from service.stores.history.base import Write
from service.wire.interactions import InteractionRequest

FORGET = "forget"


@dataclass(frozen=True, slots=True)
class EventKinds:
    """weights: of each kind of event that is accepted; history: the kinds that become a part of the history."""

    weights: Mapping[str, float]
    history: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> EventKinds:
        """As configured."""
        return cls(settings.events, settings.history_events)

    def check(self, event: str) -> None:
        """Raises InputError for a kind that is not accepted, naming those that are."""
        if event not in self.weights:
            shown = event.encode("utf-8", "replace").decode()
            known = ", ".join(self.weights)
            raise InputError(f"{shown!r} is no event here; {known} are (RDREC_EVENTS)", field="event")

    def write(self, request: InteractionRequest, at: float, idempotency_key: str | None) -> Write:
        """What the history store is asked to keep. Raises like `check`."""
        self.check(request.event)
        in_history = request.event in self.history
        return Write(request.item_id, at, idempotency_key, request.event, in_history)


def event_line(request: InteractionRequest, write: Write, *, received: float, known_to_model: bool) -> LogLine:
    """The line of an accepted event."""
    event_id = write.event_id(request.user_id)
    record = {
        "event_id": event_id, "user_id": request.user_id, "item_id": request.item_id, "event": request.event,
        "timestamp": write.timestamp, "received": received, "quantity": request.quantity, "context": request.context,
        "known_to_model": known_to_model,
    }  # fmt: skip
    return LogLine(event_id, _written(record))


def forget_line(user_id: str, *, received: float) -> LogLine:
    """The line of a user who is forgotten."""
    event_id = secrets.token_hex(16)
    record = {"event_id": event_id, "user_id": user_id, "event": FORGET, "timestamp": received, "received": received}
    return LogLine(event_id, _written(record))


def _written(record: Mapping[str, Any]) -> str:
    """In ASCII: an id may hold a lone surrogate, which has no UTF-8."""
    return json.dumps(record, separators=(",", ":"))
