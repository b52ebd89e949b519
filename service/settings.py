"""All settings of the service, read once: defaults, then a TOML file, then RDREC_* variables, then the command line.

The file is named by RDREC_SETTINGS_FILE. Nothing else in the service reads the environment.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from rdrec_core.engines.hardware import Device, Precision
from rdrec_core.types import ScoreMode, Strategy

SETTINGS_FILE_VARIABLE = "RDREC_SETTINGS_FILE"
DEFAULT_PORT = 8000
log = logging.getLogger("rdrec.service")
EventName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Scope = Literal["recommend", "write", "catalog", "admin", "metrics"]


class ApiKey(BaseModel):
    """One accepted API key. A key is rotated by listing the new one beside the old one under the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    """Who calls; appears in logs and names the rate-limit bucket."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """Lower-case hex SHA-256 of the key (make keys with `openssl rand -hex 32`)."""
    scopes: frozenset[Scope] = frozenset({"recommend"})
    rate_per_s: float | None = Field(default=None, gt=0)
    """Requests a second; None is unlimited. A batch counts once for each of its requests."""
    burst: int = Field(default=100, ge=1)


class Shares(BaseModel):
    """Of the engine's time; a line's share counts against those alone that wait too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interactive: float = Field(default=8.0, gt=0)
    explain: float = Field(default=2.0, gt=0)
    batch: float = Field(default=1.0, gt=0)
    """Parts of `/recommend/batch`, and shadows."""


class Settings(BaseSettings):
    """See docs/operations.md for how to choose them."""

    model_config = SettingsConfigDict(env_prefix="RDREC_", frozen=True, extra="forbid", env_ignore_empty=True)

    # What is served
    bundle: Path
    score_mode: ScoreMode | None = None
    """None takes the bundle's default."""
    second_bundle: Path | None = None
    """Makes a second arm `b` beside the first, `a`; so does `second_score_mode` alone, of the first bundle."""
    second_score_mode: ScoreMode | None = None
    """None takes `score_mode`."""
    second_mode: Literal["ab", "shadow", "on_request"] = "ab"
    """Beside requests that ask for an arm. ab: the second answers a share of the users, chosen by hash. shadow: it
    computes what the first answers, unseen. on_request: nothing."""
    second_share: float = Field(default=0.5, ge=0, le=1)
    strategy: Strategy | None = None
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that speak HTTP, each with engines of its own; more than one needs Redis."""
    engines: int = Field(default=1, ge=1, le=256)
    """Engine processes of each bundle in each worker."""
    engine_threads: int = Field(default=0, ge=0)
    """Threads of one engine computation; 0 divides the cores that HTTP leaves among the engines."""
    engine: Literal["auto", "onnx", "torch"] = "auto"
    """auto: ONNX Runtime with the bundle's graphs, else torch, which on a GPU computes in bfloat16."""
    device: Device = Device.AUTO
    """cuda refuses to start without a GPU that can be used; auto takes what is there, and says what."""
    precision: Precision = Precision.AUTO
    """Of ONNX Runtime's graphs. auto: float16 on a GPU where the bundle has such graphs, else float32."""
    device_ids: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    """GPUs, dealt to the engines in turn."""
    device_memory_mb: int | None = Field(default=None, ge=256)
    """Of the GPU's memory, for each engine; None is all."""
    engine_process: bool = True
    """The engine in a process of its own; False saves its memory where there is one core only."""
    weights_dir: Path | None = None
    """Where engine processes keep weights that all of them map, twice the size of a bundle's graphs. None: where there
    are several engines, a folder beside the file of `state_dir`."""
    memory_map: bool = False
    """Leave the bundle's tables in their files, for bundles larger than memory; its folder must then be replaced, never
    written to."""
    text_search: Literal["fast", "diverse"] = "fast"
    """How the model writes for `/explain`: greedily, or by the paper's diverse beam search."""
    explain_model: bool = True
    """Whether `/explain` asks the model too; its text is served only where the statements bear it out."""
    explain_quotes: bool = False
    """Show reviewers' own sentences with the statements, where the bundle has them (`rdrec profile --quotes`)."""
    explain_frames: Path | None = None
    """JSON file of sentence frames in place of the English ones."""
    bundle_public_key: str | None = None
    """Ed25519 public key (32 bytes in hex or base64); when set, an unsigned bundle is refused."""
    bundle_root: Path | None = None
    """`POST /admin/bundle` takes folders under it only; None is the folder that holds the first bundle."""

    # Catalogue
    max_new_items: int = Field(default=10_000, ge=0)
    """Items that may come behind the bundle's by `PUT /items/...`; more are refused with 507 until the next bundle. An
    item whose words change takes a further place."""
    new_item_words: float | None = Field(default=None, ge=0, le=100)
    """How many times the words count of an item that nobody has bought; None as `rdrec fuse` fitted it. 1 ranks a new
    item next to never: nothing but words can speak for it."""
    catalogue_poll_ms: int = Field(default=500, ge=10)
    """How often a replica asks the store what others changed."""
    catalogue_timeout_ms: int = Field(default=5000, ge=1)
    """How long a write of one item waits until this replica answers by it; what takes longer is kept all the same."""
    catalogue_changes_kept: int = Field(default=10_000, ge=1)
    """A replica that missed more than these reads the whole live catalogue again."""

    # HTTP
    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    trusted_proxies: tuple[str, ...] = ("127.0.0.1",)
    """Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; `*` believes everybody's."""
    keep_alive_s: int = Field(default=75, ge=1)
    """How long an idle connection stays open. Longer than balancers keep theirs (60 s), or they use closed ones."""
    open_docs: bool = False
    """Serve /docs and /openapi.json without a key although keys are listed."""
    open_metrics: bool = False
    """Serve /metrics without a key although keys are listed; else it asks for the scope `metrics`."""
    allowed_hosts: tuple[str, ...] = ("*",)
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    body_timeout_s: float = Field(default=10.0, gt=0)
    max_in_flight: int = Field(default=256, ge=1)
    """Rankings at a time, at most; more are turned away with 429 before their body is read. Explanations get a quarter
    of it, batches an eighth. While requests take more than half of their time, fewer are let in
    (`service/engine/admission.py`).
    """
    console: bool = True
    """The web page at /, with `GET /users` and `GET /items`, which list what the bundle knows."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    # Queue
    queue_size: int = Field(default=256, ge=1)
    """Requests that wait for the engine, in each line (interactive, explain, batch)."""
    shares: Shares = Shares()
    """What each line gets of the engine's time where others wait too, relative to each other."""
    batch_size: int = Field(default=16, ge=1)
    batch_wait_ms: float = Field(default=2.0, ge=0)
    timeout_ms: int = Field(default=1000, ge=1)
    """Deadline of a request that names none (`X-Request-Timeout-Ms`)."""
    explain_timeout_ms: int = Field(default=5000, ge=1)
    batch_timeout_ms: int = Field(default=20_000, ge=1)
    stall_s: float = Field(default=30.0, gt=0)
    """An engine call that runs longer than this makes the process report itself dead."""

    # Life
    drain_s: float = Field(default=20.0, gt=0)
    """From SIGTERM to the exit, at most."""
    drain_notice_s: float = Field(default=1.0, ge=0)
    """Of it: how long new requests are still served, not ready and closing connections, until balancers notice."""

    # Histories
    history_cap: int = Field(default=200, ge=20)
    history_max_bytes: int = Field(default=1 << 29, ge=1 << 16)
    """In-memory store only: what all histories may take."""
    state_dir: Path | None = None
    """In-memory store only: where the file lies that remembers who was forgotten, and beside it the event log. None is
    a folder of the bundle root's under `~/.local/state/rdrec`."""
    history_ttl_s: int = Field(default=180 * 86_400, ge=60)
    """Redis only; counted from the user's last write."""
    redis_url: SecretStr | None = None
    redis_prefix: str = "rdrec"
    redis_timeout_ms: int = Field(default=50, ge=1)
    redis_pool_size: int = Field(default=64, ge=1)

    # Events
    events: dict[EventName, Annotated[float, Field(ge=0, le=1000)]] = Field(
        default={"purchase": 1.0, "cart": 0.5, "click": 0.2, "view": 0.1}, min_length=1
    )
    """Kinds of events with what each counts among what sells now; 0 records only."""
    history_events: frozenset[EventName] = frozenset({"purchase"})
    """Which of them become a part of the user's history, from which the model answers."""
    event_log: Literal["auto", "redis", "files", "off"] = "auto"
    """Where every accepted event goes besides: a stream in Redis, or files. auto: Redis where there is one."""
    event_log_length: int = Field(default=1_000_000, ge=1000)
    """Redis only: about so many of the last events are kept."""
    event_log_dir: Path | None = None
    """Files only; None is the folder `events` beside the file of `state_dir`."""
    event_log_max_bytes: int = Field(default=64 << 20, ge=1024)
    event_log_fsync: Literal["always", "interval", "never"] = "interval"
    """Files only: on the disk before an event is acknowledged, within a second, or when the system sees fit."""

    # Feedback
    impression_ttl_s: int = Field(default=86_400, ge=1)
    """How long after an answer `POST /feedback` is taken for it."""

    # Answer cache
    cache_size: int = Field(default=10_000, ge=0)
    """Answers kept in this process; 0 turns the cache off."""
    cache_ttl_s: float = Field(default=60.0, gt=0)
    shared_cache_ttl_s: int = Field(default=86_400, ge=1)
    """Explanations in Redis."""

    # Security
    api_keys: tuple[ApiKey, ...] = ()
    """None listed: everybody may recommend and write, nobody may use the admin endpoint."""
    anonymous_rate_per_s: float | None = Field(default=None, gt=0)
    """Per client address, where no keys are listed."""
    anonymous_burst: int = Field(default=100, ge=1)

    # Observability
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: bool = True
    log_salt: SecretStr = SecretStr("rdrec")
    """Mixed into the user hashes of the logs; set your own so that nobody can look user ids up in them."""
    otel_endpoint: str | None = None
    """OTLP/HTTP endpoint for traces; needs the extra `otel`."""

    def default_timeout_ms(self, path: str) -> int:
        """Deadline of an endpoint for requests that name none."""
        if path.startswith("/items/"):
            return self.batch_timeout_ms if path == "/items/batch" else self.catalogue_timeout_ms
        return {"/explain": self.explain_timeout_ms, "/recommend/batch": self.batch_timeout_ms}.get(
            path, self.timeout_ms
        )

    @property
    def marks_file(self) -> Path:
        """Where the in-memory store remembers who was forgotten."""
        return self._state / "forgotten"

    @property
    def shared_weights(self) -> Path | None:
        """Where each bundle has a folder of weights that its engines share; None where each engine holds its own."""
        if self.weights_dir is None and self.workers * self.engines == 1:
            return None
        return self.weights_dir or self._state / "weights"

    @property
    def event_log_folder(self) -> Path | None:
        """Where the files of the event log lie; None where it has none."""
        if self.event_log in ("redis", "off") or (self.event_log == "auto" and self.redis_url is not None):
            return None
        return self.event_log_dir or self._state / "events"

    @property
    def _state(self) -> Path:
        root = str((self.bundle_root or self.bundle.resolve().parent).resolve())
        home = Path(os.environ.get("XDG_STATE_HOME") or Path(os.environ.get("HOME", "/nonexistent")) / ".local/state")
        own = home / "rdrec" / hashlib.sha256(root.encode()).hexdigest()[:16]
        return self.state_dir or own

    @property
    def arms(self) -> dict[str, Settings]:
        """What is served, by arm: these settings with the arm's own `bundle` and `score_mode`."""
        arms = {"a": self}
        if self.second_bundle is not None or self.second_score_mode is not None:
            bundle, score_mode = self.second_bundle or self.bundle, self.second_score_mode or self.score_mode
            arms["b"] = self.model_copy(update={"bundle": bundle, "score_mode": score_mode})
        return arms

    @model_validator(mode="after")
    def _workers_share_their_histories(self) -> Settings:
        if self.workers > 1 and self.redis_url is None:
            raise ValueError(
                f"workers: {self.workers} processes would each know other histories and other forgotten users; set"
                " redis_url (RDREC_REDIS_URL), or workers 1 and more engines"
            )
        return self

    @field_validator("port", mode="before")
    @classmethod
    def _port_of_a_service_link(cls, value: object) -> object:
        """Kubernetes sets RDREC_PORT=tcp://10.0.0.1:8000 in every pod beside a Service named `rdrec`: not for us."""
        if isinstance(value, str) and value.startswith(("tcp://", "udp://")):
            log.warning("RDREC_PORT=%s is a Kubernetes service link and is ignored: listening on port 8000", value)
            return DEFAULT_PORT
        return value

    @field_validator("second_score_mode")
    @classmethod
    def _second_arm_is_another(cls, value: ScoreMode | None, info: ValidationInfo) -> ScoreMode | None:
        if value is not None and info.data.get("second_bundle") is None and value == info.data.get("score_mode"):
            raise ValueError(f"without second_bundle both arms would serve one bundle in score mode {value}")
        return value

    @field_validator("second_mode")
    @classmethod
    def _second_mode_has_an_arm(cls, value: str, info: ValidationInfo) -> str:
        if value != "ab" and info.data.get("second_bundle") is None and info.data.get("second_score_mode") is None:
            raise ValueError(f"{value} needs a second arm: set second_bundle or second_score_mode")
        return value

    @field_validator("events")
    @classmethod
    def _forget_is_no_event(cls, value: dict[str, float]) -> dict[str, float]:
        if "forget" in value:
            raise ValueError("forget is what the log says of a user who is forgotten; name the event otherwise")
        return value

    @field_validator("history_events")
    @classmethod
    def _history_is_of_known_events(cls, value: frozenset[str], info: ValidationInfo) -> frozenset[str]:
        if unknown := value - set(info.data.get("events", value)):
            raise ValueError(f"{', '.join(sorted(unknown))} must be among the names of events")
        return value

    @field_validator("bundle_public_key")
    @classmethod
    def _key_is_32_bytes(cls, value: str | None) -> str | None:
        if value is not None:
            public_key_bytes(value)
        return value

    @model_validator(mode="after")
    def _log_has_its_redis(self) -> Self:
        if self.event_log == "redis" and self.redis_url is None:
            raise ValueError("event_log is redis, and no redis_url is set")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line over environment over file."""
        file = os.environ.get(SETTINGS_FILE_VARIABLE)
        if file is None:
            return init_settings, env_settings
        if not Path(file).is_file():
            raise FileNotFoundError(f"{SETTINGS_FILE_VARIABLE} names {file}, which is not a file")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)


def public_key_bytes(text: str) -> bytes:
    """32 raw bytes out of hex or base64. Raises ValueError saying what would be right."""
    try:
        raw = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes, written as 64 hex digits or in base64")
    return raw


def read_settings(**overrides: Any) -> Settings:
    """Settings of this process; `overrides` are command-line values, None where not given."""
    return Settings(**{name: value for name, value in overrides.items() if value is not None})
