"""Bodies, headers and paths that nobody sends by accident: a problem each time, never a 5xx, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from service.web.app import create_app
from tests.fake_service import fake_settings, open_fake, write_bundle

POSTS = ["/recommend/sequential", "/recommend/topn", "/explain", "/interactions", "/recommend/batch", "/admin/bundle"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    bundle = write_bundle(tmp_path_factory.mktemp("bundles") / "first")
    with TestClient(create_app(fake_settings(bundle), open_engine=open_fake)) as client:
        yield client


JSON = "application/json"
BODIES: dict[str, bytes] = {
    "empty": b"",
    "space": b"   ",
    "not json": b"{'user_id': 1}",
    "cut off": b'{"user_id": "u',
    "null": b"null",
    "number": b"1e999",
    "NaN": b"NaN",
    "NaN field": b'{"user_id": "u", "item_id": "i0001", "timestamp": NaN, "n_items": NaN}',
    "infinite field": b'{"user_id": "u", "item_id": "i0001", "timestamp": -Infinity, "n_items": 1e999}',
    "huge integer": b'{"n_items": 1' + b"0" * 5000 + b', "timestamp": 1' + b"0" * 400 + b"}",
    "huge float": b'{"timestamp": 1e308, "n_items": 1e308}',
    "lone surrogate": rb'{"user_id": "\ud800", "item_id": "\udfff", "history": ["\ud800"], "candidates": ["\udc00"]}',
    "surrogate name": rb'{"\ud800": 1}',
    "invalid utf-8": b'{"user_id": "\xff\xfe", "item_id": "\xc0\x80"}',
    "utf-16": '{"zz": "u"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"zz": 1}',
    "nul": rb'{"user_id": "\u0000", "item_id": "\u0000", "history": ["\u0000"], "candidates": ["\u0000"]}',
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep history": b'{"history": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "many keys": b"{" + b",".join(b'"k%d": 1' % n for n in range(20_000)) + b"}",
    "same key twice": b'{"n_items": 5, "n_items": -1, "zz": 1}',
    "long string": b'{"user_id": "' + b"a" * 500_000 + b'"}',
    "long list": b'{"history": [' + b",".join([b'"i0001"'] * 100_000) + b"]}",
    "prototype": b'{"__proto__": {"admin": true}, "constructor": 1}',
    "wrong kinds": b'{"user_id": [], "history": "i0001", "candidates": {}, "requests": "x", "path": 3}',
    "over the limit": b'{"user_id": "' + b"a" * 1_100_000 + b'"}',
    "batch of anything": b'{"requests": [{}, [], null, 3, {"kind": "nope"}, {"kind": ["topn"]}, {"kind": null}]}',
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_hostile_body_is_a_client_problem(client: TestClient, path: str, name: str) -> None:
    response = client.post(path, content=BODIES[name], headers={"content-type": JSON})
    assert 400 <= response.status_code < 500, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()) >= {"type", "title", "status", "detail", "request_id"}
    assert len(response.content) < 20_000
    assert "Traceback" not in response.text
    assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("path", POSTS[:-1])
@pytest.mark.parametrize(
    "media_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"],
)
def test_another_media_type_is_415(client: TestClient, path: str, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    response = client.post(path, content=b'{"user_id": "u"}', headers=headers)
    assert response.status_code == 415
    assert response.json()["type"] == "urn:rdrec:problem:wrong-media-type"


def test_a_media_type_with_a_charset_is_accepted(client: TestClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/recommend/sequential", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/users/%ED%A0%80/history",
        "/users/%00/history",
        "/users/..%2F..%2Fetc/history",
        "/users/" + "a" * 5000 + "/history",
    ],
)
def test_hostile_paths_are_answered(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in {200, 404, 422}
    assert client.delete(path).status_code in {204, 404, 422}


@pytest.mark.parametrize(
    "path", ["/console/../app.py", "/console/%2e%2e/app.py", "/console/..%2fapp.py", "/console//etc/passwd"]
)
def test_the_console_serves_its_own_files_only(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_hostile_headers_are_answered(client: TestClient) -> None:
    for name, value in (
        (b"x-request-id", b"\xff" * 50),
        (b"authorization", b"Bearer \xff"),
        (b"host", b"\xff"),
        (b"cookie", b"a" * 4000),
    ):
        assert client.get("/v1/model", headers={name: value}).status_code == 200  # type: ignore[dict-item]
    for value in (b"", b"k" * 129):
        headers = {b"idempotency-key": value}
        body = {"user_id": "u", "item_id": "i0001"}
        assert client.post("/interactions", json=body, headers=headers).status_code == 422  # type: ignore[arg-type]
