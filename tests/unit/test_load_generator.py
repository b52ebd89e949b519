"""benchmarks/load_generator.py against servers that answer, hang up or stay silent: what is lost has its reason."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import load_generator
from benchmarks.load_generator import Load, Placement, Result, Stream, endless, request_bytes

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ASKED = request_bytes("/recommend/sequential", b"{}", 0.05)


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose every connection is given to `serve` on a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


def answers(connection: socket.socket) -> None:
    while connection.recv(65536):
        connection.sendall(ANSWER)


def one_at_a_time(load: Load, n: int) -> Result:
    """n requests, each after the answer to the one before."""
    result = Result(1.0, float("nan"), 0.05)
    for _ in range(n):
        load._ask(0.0, ASKED, result)
        load._wait_for_the_rest()
    return result


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator.time, "perf_counter", lambda: 0.0)


def test_answers_are_counted_and_their_connection_used_again() -> None:
    connections = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        answers(connection)

    with server(serve) as port:
        result = one_at_a_time(Load(port), 5)
    assert result.statuses == {200: 5}
    assert not result.lost
    assert len(connections) == 1


def test_a_connection_that_is_closed_before_or_behind_an_answer_is_told_apart() -> None:
    def hangs_up(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.close()

    def once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(ANSWER)
        connection.recv(65536)
        connection.close()

    with server(hangs_up) as port:
        assert one_at_a_time(Load(port), 1).lost == {"closed connection": 1}
    with server(once) as port:
        result = one_at_a_time(Load(port), 2)
        assert (result.statuses, result.lost) == ({200: 1}, {"closed idle connection": 1})


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert one_at_a_time(Load(port), 1).lost == {"refused connection": 1}


def test_an_answer_that_never_comes_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda connection: None) as port:
        load, result = Load(port), Result(1.0, 1.0, 0.05)
        load._ask(0.0, ASKED, result)
        monkeypatch.setattr(load_generator.time, "perf_counter", lambda: 0.05 + load_generator.GRACE_S)
        load._wait_for_the_rest()
    assert result.lost == {"late": 1}
    assert result.share(200) == 0.0


def test_streams_share_the_connections_and_have_results_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator.time, "perf_counter", time.monotonic)  # this once it runs
    with server(answers) as port:
        streams = [Stream(300.0, endless([ASKED]), 30.0), Stream(100.0, endless([ASKED]), 20.0)]
        first, second = Load(port).open_loop(streams, 0.2, seed=1)
    assert first.statuses[200] > second.statuses[200] > 0
    assert (first.offered, second.offered, second.deadline_s) == (300.0, 100.0, 20.0)


def test_from_four_processors_on_the_generator_has_one_of_its_own() -> None:
    shared, apart = Placement.of([0, 1]), Placement.of([3, 1, 0, 2])
    assert shared.service == shared.generator == {0, 1}
    assert (apart.service, apart.generator) == ({0, 1, 2}, {3})
    assert "share 2 processors" in str(shared)
    assert "one of its own" in str(apart)
