"""Users' first recommendations explained by a real `rdrec-serve` over HTTP: what must never happen, and its latency.

    python benchmarks/explanations.py [--bundle BUNDLE] [--show 30] [--users N] [--repeats N] [--quick] [--json FILE]

Without the model's own text, so that nothing is decoded. Names of other items are looked for by the part of a title
before its colon, but not those of the user's own history. `--show` prints the explanations that random.Random(7) draws
as rows of a Markdown table, with what the user said and which earlier items speak for the recommended one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import served
from benchmarks.load_generator import Placement
from benchmarks.records import DEMO, in_turns, keep, table
from rdrec_core.bundle import Bundle
from rdrec_core.statements import Statements
from rdrec_core.titles import short_title
from rdrec_core.whole_texts import is_whole

FIRST_PERSON = re.compile(r"\b(?:I|me|my|mine|we|us|our)\b")
SETTINGS = {"RDREC_EXPLAIN_MODEL": "false"}


@dataclass(frozen=True)
class Asked:
    """One user's first recommendation explained. seconds: of the explanation alone, for the caller; served_s: for the
    service, as it says itself.
    """

    user: str
    answer: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: float
    served_s: float


def ask(connection: HTTPConnection, user: str) -> Asked:
    """The service's word for one user. By the standard library: a client like httpx takes as long as the service."""

    def answer(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[dict[str, Any], HTTPResponse]:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return json.loads(response.read()), response

    recommended, _ = answer("POST", "/recommend/sequential", {"user_id": user, "n_items": 1})
    started = time.perf_counter()
    explained, response = answer("POST", "/explain", {"user_id": user, "item_id": recommended["items"][0]["item_id"]})
    seconds = time.perf_counter() - started
    history, _ = answer("GET", f"/history?{urlencode({'user_id': user})}")
    served_ms = float(response.headers["server-timing"].rpartition("total;dur=")[2])
    return Asked(user, explained, history["items"], seconds, served_ms / 1000)


def counts(asked: list[Asked], bundle: Bundle) -> dict[str, float]:
    """What is said of an explanation at the head of this file, over all of them."""
    said = Statements.of_bundle(bundle)
    titles = [bundle.catalog.title(n) for n in range(len(bundle.catalog))]
    heads = {str(title or "").partition(":")[0] for title in titles} - {""}

    def names_another(each: Asked) -> bool:
        own = " ".join(str(item["title"]) for item in [each.answer, *each.history])
        return any(head in each.answer["explanation"] and head not in own for head in heads)

    def whole(each: Asked) -> bool:
        text = each.answer["explanation"]
        for item in [each.answer, *each.history]:
            text = text.replace(short_title(item["title"] or "-"), "it")
        return is_whole(text)

    def contradicts(each: Asked) -> bool:
        rows = said.of_item(bundle.catalog.item_ids.find(each.answer["item_id"]) or 0)
        blamed = {row.text: row.count for row in rows if row.polarity < 0}
        told = [s for s in each.answer["statements"] if s["about"] == "item"]
        return any(s["polarity"] == "negative" or blamed.get(s["text"], 0) >= s["count"] for s in told)

    for each in asked:
        if names_another(each) or not whole(each) or contradicts(each):
            print(f"look at this: {each.answer['explanation']}")
    answers = [each.answer for each in asked]
    texts = [answer["explanation"] for answer in answers]
    milliseconds = sorted(1000 * each.seconds for each in asked)
    return {
        "explanations": len(texts),
        "name another item": sum(map(names_another, asked)),
        "cut short": sum(not whole(each) for each in asked),
        "first person": sum(bool(FIRST_PERSON.search(text)) for text in texts),
        "contradictions": sum(map(contradicts, asked)),
        "from statements": sum(answer["basis"] == "statements" for answer in answers),
        "different explanations": len(set(texts)),
        "different user_preference": len({answer["user_preference"] for answer in answers} - {None}),
        "p50 of /explain, ms": round(statistics.median(milliseconds), 2),
        "p50 inside the service, ms": round(1000 * statistics.median(each.served_s for each in asked), 2),
        "p99 of /explain, ms": round(milliseconds[int(0.99 * (len(milliseconds) - 1))], 2),
    }


def as_row(each: Asked) -> str:
    """For docs/explanations.md."""
    answer = each.answer
    own = "; ".join(f"{s['text']} ({s['count']})" for s in answer["statements"] if s["about"] == "user") or "-"
    evidence = "; ".join(str(item["title"] or item["item_id"]) for item in answer["evidence"][:3]) or "-"
    return (
        f"| {answer['explanation']} | {answer['caution'] or '-'} | {answer['user_preference']} | {own} | {evidence} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=DEMO / "bundle")
    parser.add_argument("--show", type=int, default=0, help="explanations to print, drawn by random.Random(7)")
    parser.add_argument("--users", type=int, help="the first so many; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="rounds over all users; medians are shown")
    parser.add_argument("--quick", action="store_true", help="one round, and no line under benchmarks/results")
    parser.add_argument("--json", type=Path, help="write the record here")
    chosen = parser.parse_args()
    bundle = Bundle.open(chosen.bundle)
    users = [bundle.users.user_ids[n] for n in range(len(bundle.users))][: chosen.users]
    with (
        served(chosen.bundle, SETTINGS, Placement.of(list(os.sched_getaffinity(0)))) as port,
        closing(HTTPConnection("127.0.0.1", port, timeout=10.0)) as connection,
    ):
        for user in users[:20]:  # so that nothing is measured that happens once
            ask(connection, user)
        rounds: list[list[Asked]] = []

        def measure() -> dict[str, float]:
            rounds.append([ask(connection, user) for user in users])
            return counts(rounds[-1], bundle)

        found = in_turns({"": measure}, 1 if chosen.quick else chosen.repeats)[""]
    shown = table(f"{chosen.bundle}: the first recommendation of each user", "", "", left=("",))
    for name, value in found.items():
        shown.add_row(name, f"{value:,}")
    Console().print(shown)
    keep("explanations", {"bundle": bundle.manifest.model_version, **found}, file=chosen.json, quick=chosen.quick)
    for each in random.Random(7).sample(rounds[-1], min(chosen.show, len(users))):
        print(as_row(each))


if __name__ == "__main__":
    main()
