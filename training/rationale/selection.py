"""From `--teacher SPEC` to a teacher. The only place that knows all of them; each is imported when it is asked for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rdrec_core.errors import InputError
from training.rationale.teacher import Teacher

SPECS = "extractive, openai:URL, transformers:PATH_OR_ID or batch"


class TeacherOptions(BaseModel):
    """What the command line says about a teacher; each takes what concerns it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    concurrency: int = Field(default=32, ge=1, le=1024)
    batch_size: int = Field(default=16, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    max_completion_tokens: int = Field(default=120, ge=8)
    structured: bool = True
    timeout_s: float = Field(default=60.0, gt=0)
    max_attempts: int = Field(default=8, ge=1)


def open_teacher(spec: str, options: TeacherOptions) -> Teacher:
    """The teacher named by `spec`. Raises InputError naming --teacher or the option that is missing."""
    kind, _, target = spec.partition(":")
    if kind == "extractive" and not target:
        from training.rationale.extractive import ExtractiveTeacher

        return ExtractiveTeacher()
    raise InputError(f"--teacher {spec!r} is not known; use {SPECS}", field="--teacher")
