"""Bodies about the service itself: what it serves, what it holds, how it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictStr, StringConstraints

from rdrec_core.types import ScoreMode, Strategy
from service.wire.base import Answer, RequestBody
from service.wire.interactions import HistoryItem


class BundleRequest(RequestBody):
    """Serve another bundle."""

    path: Annotated[StrictStr, StringConstraints(min_length=1, max_length=1024)] | None = Field(
        default=None,
        description="A folder under the bundle root; the folder that is served now, read again, if absent.",
    )


class UsersAnswer(Answer):
    """Users whom the bundle knows, by the beginning of their id."""

    user_ids: list[str]


class ItemsAnswer(Answer):
    """Items by the beginning of their id or a part of their title."""

    items: list[HistoryItem]


class ArmAnswer(Answer):
    """What one arm serves."""

    model_version: str
    score_mode: ScoreMode


class ModelAnswer(Answer):
    """What is being served."""

    model_version: str
    name: str
    created_at: str
    recipe: dict[str, Any]
    protocol: str
    label_scheme: str
    n_users: int
    n_items: int
    score_mode: ScoreMode
    score_modes: list[ScoreMode]
    strategy: Strategy
    candidate_width: int
    text_tasks: list[str]
    fusion: dict[str, float] | None
    metrics: dict[str, float]
    devices: list[str] = Field(description="Where the engines compute that run, one each: `cpu`, `cuda:0`.")
    arms: dict[str, ArmAnswer] = Field(description="What is served by arm, `a` and where there is a second one `b`.")


class SwapAnswer(ModelAnswer):
    """What is being served now."""

    survives_restart: bool = Field(
        description="False where a restart would serve the bundle of the settings again, which are no link to this one."
    )


class HealthAnswer(Answer):
    """`reasons` says what is missing for `ready`."""

    status: Literal["ok", "ready", "degraded", "not ready", "dead"]
    reasons: list[str] = Field(default=[])
