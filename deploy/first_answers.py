"""Wait for a running service and print one answer of each endpoint, with titles. Used by the demo."""

from __future__ import annotations

import sys
import time
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

console = Console()


def wait_until_ready(client: httpx.Client, timeout_s: float = 60.0) -> None:
    """Poll /health/ready until it answers 200; exits with a message when the service does not come up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"the service was not ready within {timeout_s:.0f} s")


def ask(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST a body and return the answer; a problem ends the demo with its text."""
    answer = client.post(path, json=body)
    if answer.status_code != 200:
        sys.exit(f"POST {path} -> {answer.status_code}: {answer.text}")
    console.print(f"\n[bold]POST {path}[/bold] {body}  [dim]{answer.elapsed.total_seconds() * 1000:.0f} ms[/dim]")
    return answer.json()


SIGNALS = ("model", "graph", "text")


def ranking(answer: dict[str, Any]) -> Table:
    """The answer's items as a table, with the three signals behind each score."""
    table = Table("rank", "item", "title", "score", *SIGNALS)
    for item in answer["items"]:
        signals = (item["signals"][name] for name in SIGNALS)
        shown = ["-" if value is None else f"{value:.2f}" for value in signals]
        table.add_row(str(item["rank"]), item["item_id"], item["title"] or "", f"{item['score']:.3f}", *shown)
    return table


def words_of(item: dict[str, Any]) -> str:
    """The longest words of an item's title: what somebody might type who looks for such a thing."""
    found = sorted((word for word in (item["title"] or "").split() if word.isalpha()), key=len, reverse=True)
    return " ".join(found[:3]).lower()


def main() -> None:
    """Ask every endpoint of the service at the given address for the given user."""
    address, user = sys.argv[1:]
    with httpx.Client(base_url=address, timeout=30.0) as client:
        wait_until_ready(client)
        model = client.get("/v1/model").raise_for_status().json()
        history = client.get(f"/users/{user}/history").raise_for_status().json()
        console.print(f"[bold]{model['model_version']}[/bold], user {user}, latest of the history:")
        for item in history["items"][-5:]:
            console.print(f"  {item['item_id']}  {item['title'] or ''}")

        sequential = ask(client, "/recommend/sequential", {"user_id": user, "n_items": 5})
        console.print(ranking(sequential))
        candidates = [item["item_id"] for item in sequential["items"]]
        console.print(
            ranking(ask(client, "/recommend/topn", {"user_id": user, "candidates": candidates, "n_items": 3}))
        )
        wish = words_of(client.get("/items", params={"query": "", "limit": 100}).raise_for_status().json()["items"][-1])
        steered = ask(client, "/recommend/sequential", {"user_id": user, "n_items": 5, "prefer": wish})
        console.print(ranking(steered))
        console.print("the words moved the list" if steered["steered"] else "no item's text holds these words")
        console.print(ranking(ask(client, "/recommend/similar", {"item_ids": candidates[:1], "n_items": 3})))
        why = ask(client, "/explain", {"user_id": user, "item_id": candidates[0]})
        for key in ("explanation", "user_preference", "item_attributes"):
            console.print(f"  [bold]{key}[/bold]: {why[key]}")
        for item in why["evidence"]:
            console.print(f"  [bold]evidence[/bold]: {item['item_id']}  {item['title'] or ''}")


if __name__ == "__main__":
    main()
