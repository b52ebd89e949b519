"""A bundle into service: every replica, then the link; and never two refreshes at once."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.refreshing.lock import BusyError, only_one
from training.refreshing.publishing import PublishError, RefusedError, addresses, lead_to, publish
from training.refreshing.settings import Lock, Replicas


class Replica(BaseHTTPRequestHandler):
    """Serves the version `v-<folder>` of what it was told to open; refuses what `refused` names."""

    served, refused, keys = "v-old", "", []  # of a subclass each, see `replica`

    def do_GET(self) -> None:
        self._answer(200, {"model_version": type(self).served})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).keys = [*type(self).keys, self.headers["Authorization"]]
        if body["path"] == type(self).refused:
            return self._answer(409, {"detail": "weights.safetensors was altered"})
        type(self).served = f"v-{body['path']}"
        self._answer(200, {})

    def _answer(self, status: int, body: dict) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def replica(**own: object) -> Iterator[tuple[str, type[Replica]]]:
    kind = type("Own", (Replica,), own)
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kind
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("old")
    return tmp_path


def test_every_replica_serves_the_bundle_and_then_the_link_leads_to_it(root: Path) -> None:
    (root / "key").write_text("secret\n")
    with replica() as (one, first), replica(served="v-new") as (two, second):
        found = publish(
            root / "new",
            "v-new",
            root / "old",
            root / "current",
            Replicas(urls=(one, two + "/"), key_file=root / "key"),
        )
    assert found == [one, two]
    assert (first.served, first.keys) == ("v-new", ["Bearer secret"])
    assert second.keys == [], "what serves it already is left alone"
    assert (root / "current").readlink() == Path("new")


def test_where_one_refuses_the_others_go_back(root: Path) -> None:
    with replica() as (one, first), replica(refused="new") as (two, second):
        with pytest.raises(RefusedError, match="was altered"):
            publish(root / "new", "v-new", root / "old", root / "current", Replicas(urls=(one, two)))
        assert (first.served, second.served) == ("v-old", "v-old")
    assert (root / "current").readlink() == Path("old")


def test_what_cannot_be_reached_or_serves_something_else_is_told(root: Path) -> None:
    with replica() as (gone, _):
        pass
    with pytest.raises(PublishError, match="run the refresh again"):
        publish(root / "new", "v-new", None, root / "current", Replicas(urls=(gone,)))
    with replica() as (one, _), pytest.raises(PublishError, match="serves v-new, not another"):
        publish(root / "new", "another", None, root / "current", Replicas(urls=(one,)))
    assert (root / "current").readlink() == Path("old")


def test_replicas_are_found_by_a_name() -> None:
    assert addresses(Replicas(dns="http://127.0.0.1:8000")) == ["http://127.0.0.1:8000"]
    with pytest.raises(PublishError, match="not known"):
        addresses(Replicas(dns="no-such-host.invalid:80"))


def test_a_folder_in_the_link_s_place_is_not_touched(root: Path) -> None:
    with pytest.raises(PublishError, match="not a link"):
        lead_to(root / "old", root / "new")


def test_two_runs_of_one_host_never_run_at_once(tmp_path: Path) -> None:
    with only_one(tmp_path, Lock()), pytest.raises(BusyError, match="another refresh"), only_one(tmp_path, Lock()):
        pass
    with only_one(tmp_path, Lock()):
        pass
