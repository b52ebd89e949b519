"""Settings: where they come from, which wins, and that nothing secret shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, public_key_bytes, read_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RDREC_SETTINGS_FILE", *(f"RDREC_{field.upper()}" for field in Settings.model_fields)):
        monkeypatch.delenv(name, raising=False)


def test_command_line_over_environment_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rdrec.toml"
    file.write_text('bundle = "from-file"\nport = 1111\nqueue_size = 7\nlog_level = "error"\n')
    monkeypatch.setenv("RDREC_SETTINGS_FILE", str(file))
    monkeypatch.setenv("RDREC_PORT", "2222")
    monkeypatch.setenv("RDREC_LOG_LEVEL", "debug")
    settings = read_settings(port=3333, bundle=None)
    assert settings.bundle == Path("from-file")
    assert (settings.port, settings.log_level, settings.queue_size, settings.batch_size) == (3333, "debug", 7, 16)


def test_keys_are_listed_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    file = tmp_path / "rdrec.toml"
    file.write_text(
        f'bundle = "b"\n[[api_keys]]\nname = "shop"\nsha256 = "{digest}"\nscopes = ["recommend", "write"]\n'
    )
    monkeypatch.setenv("RDREC_SETTINGS_FILE", str(file))
    (key,) = read_settings().api_keys
    assert (key.name, key.scopes) == ("shop", {"recommend", "write"})


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("quue_size = 3", "quue_size"),
        ("queue_size = 0", "queue_size"),
        ('second_mode = "both"', "second_mode"),
        ('second_mode = "shadow"', r"second_mode\n.*shadow needs a second arm: set second_bundle or second_score_mode"),
        ('second_mode = "on_request"', "on_request needs a second arm"),
        ('second_score_mode = "quick"', "second_score_mode"),
        ('score_mode = "full"\nsecond_score_mode = "full"', r"second_score_mode\n.*both arms .* score mode full"),
        ('bundle_public_key = "abc"', "64 hex digits"),
        ('[[api_keys]]\nname = "x"\nsha256 = "plain text"', "sha256"),
        ('[[api_keys]]\nname = "x"\nsha256 = "' + "0" * 64 + '"\nscopes = ["root"]', "scopes"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, named: str) -> None:
    file = tmp_path / "rdrec.toml"
    file.write_text(f'bundle = "b"\n{line}\n')
    monkeypatch.setenv("RDREC_SETTINGS_FILE", str(file))
    with pytest.raises(ValidationError, match=named):
        read_settings()


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ({}, {"a": ("x", None)}),
        ({"score_mode": "full", "second_bundle": "y"}, {"a": ("x", "full"), "b": ("y", "full")}),
        ({"second_score_mode": "trie"}, {"a": ("x", None), "b": ("x", "trie")}),
        (
            {"score_mode": "full", "second_bundle": "y", "second_score_mode": "full", "second_mode": "on_request"},
            {"a": ("x", "full"), "b": ("y", "full")},
        ),
    ],
)
def test_each_arm_has_its_bundle_and_score_mode(given: dict[str, str], served: dict[str, tuple[str, str]]) -> None:
    arms = read_settings(bundle="x", port=3333, **given).arms
    assert {name: (str(own.bundle), own.score_mode) for name, own in arms.items()} == served
    assert {own.port for own in arms.values()} == {3333}


def test_a_settings_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDREC_SETTINGS_FILE", "/nowhere/rdrec.toml")
    with pytest.raises(FileNotFoundError, match="RDREC_SETTINGS_FILE names /nowhere"):
        read_settings(bundle="b")


def test_secrets_do_not_show() -> None:
    settings = read_settings(bundle="b", redis_url="redis://:hunter2@host", log_salt="pepper")
    assert "hunter2" not in repr(settings)
    assert "pepper" not in repr(settings)


def test_a_public_key_is_read_from_hex_and_base64() -> None:
    assert public_key_bytes("00" * 31 + "ff") == bytes(31) + b"\xff"
    assert public_key_bytes("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP8=") == bytes(31) + b"\xff"
