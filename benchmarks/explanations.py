"""Users' first recommendations explained by the service itself: what must never happen, counted, and how long it takes.

    python benchmarks/explanations.py work/demo/bundle [--show 30]

Names of other items are looked for by the part of a title before its colon, but not those of the user's own history.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import time
from pathlib import Path

from fastapi.testclient import TestClient

from rdrec_core.bundle import Bundle
from service.settings import Settings
from service.web.app import create_app

FIRST_PERSON = re.compile(r"\b(?:I|me|my|mine|we|us|our)\b")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--show", type=int, default=0, help="explanations to print, drawn by random.Random(7)")
    parser.add_argument("--users", type=int, help="the first so many; all by default")
    asked = parser.parse_args()
    bundle = Bundle.open(asked.bundle)
    users = [bundle.users.user_ids[n] for n in range(len(bundle.users))][: asked.users]
    heads = {str(bundle.catalog.title(n) or "").partition(":")[0] for n in range(len(bundle.catalog))} - {""}
    settings = Settings(bundle=asked.bundle, access_log=False, engine_process=False, explain_model=False)
    answers, seconds = [], []
    with TestClient(create_app(settings)) as client:
        for user in users:
            first = client.post("/recommend/sequential", json={"user_id": user, "n_items": 1}).json()["items"][0]
            started = time.perf_counter()
            answer = client.post("/explain", json={"user_id": user, "item_id": first["item_id"]}).json()
            seconds.append(time.perf_counter() - started)
            history = client.get(f"/users/{user}/history").json()["items"]
            own = " ".join(str(item["title"]) for item in [first, *history])
            others = [head for head in heads if head in answer["explanation"] and head not in own]
            answers.append((user, answer, others))
    texts = [answer["explanation"] for _, answer, _ in answers]
    counts = {
        "explanations": len(texts),
        "name another item": sum(bool(others) for *_, others in answers),
        "not ended": sum(not text.endswith(".") for text in texts),
        "first person": sum(bool(FIRST_PERSON.search(text)) for text in texts),
        "of statements": sum(answer["basis"] == "statements" for _, answer, _ in answers),
        "blamed and praised at once": sum(
            any(s["polarity"] == "negative" for s in answer["statements"]) for _, answer, _ in answers
        ),
        "different explanations": len(set(texts)),
        "different user_preference": len({answer["user_preference"] for _, answer, _ in answers}),
        "p50 of /explain, ms": round(1000 * statistics.median(seconds), 2),
    }
    for name, value in counts.items():
        print(f"{name:<28} {value}")
    for user, answer, _ in random.Random(7).sample(answers, min(asked.show, len(answers))):
        print(f"- {user}: {answer['explanation']} | {answer['user_preference']} | caution: {answer['caution']}")


if __name__ == "__main__":
    main()
