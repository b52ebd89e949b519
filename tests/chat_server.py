"""An OpenAI-compatible chat server on loopback that behaves as its script says, well or badly.

For the distillation tests and benchmark. Speaks HTTP/1.1 over raw sockets, so that it can also cut a connection or send
half a body; runs in a thread of its own; remembers every request and every completion that it gave.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]
    attempt: int
    """How often this very question was sent before, 0 at first."""

    @property
    def question(self) -> tuple[str, str]:
        """(system, user)."""
        system, user = self.body["messages"]
        return system["content"], user["content"]


@dataclass(frozen=True)
class Reply:
    """What to send: `completion` True counts it as an answer given."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    completion: bool = False
    cut: bool = False
    """Close the connection after half of the body."""


def completion(
    text: str | None,
    *,
    delay_s: float = 0.0,
    finish_reason: str = "stop",
    usage: bool = True,
    tokens: tuple[int, int] = (50, 20),
) -> Reply:
    """A proper chat completion."""
    payload: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
    }
    if usage:
        payload["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return Reply(json.dumps(payload).encode(), delay_s=delay_s, completion=True)


class ChatServer:
    """Use as a context manager; `url` is what `openai:` takes. `script` runs in the server's thread."""

    def __init__(self, script: Callable[[Call], Reply]) -> None:
        self._script = script
        self.sent: Counter[tuple[str, str]] = Counter()
        """Question -> how often it came in."""
        self.answered: Counter[tuple[str, str]] = Counter()
        """Question -> how many completions were given."""
        self.active = 0
        self.peak = 0
        self.statuses: Counter[int] = Counter()

    def __enter__(self) -> Self:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
            self._stopping = asyncio.Event()
            started.set()
            await self._stopping.wait()
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve())
            self._loop.run_until_complete(asyncio.sleep(0.05))  # lets the cancelled connections end

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
        }
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
        call = Call(body, headers, 0)
        call = Call(body, headers, self.sent[call.question])
        self.sent[call.question] += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            reply = self._script(call)
            if reply.delay_s:
                await asyncio.sleep(reply.delay_s)
            self.answered[call.question] += reply.completion
            self.statuses[reply.status] += 1
            lines = [f"HTTP/1.1 {reply.status} Whatever", "content-type: application/json"]
            lines += [f"content-length: {len(reply.body)}", *(f"{k}: {v}" for k, v in reply.headers.items())]
            sent = reply.body[: len(reply.body) // 2] if reply.cut else reply.body
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + sent)
            await writer.drain()
            return not reply.cut
        finally:
            self.active -= 1
