"""From `--teacher SPEC` to a teacher. The only place that knows all of them; each is imported when it is asked for."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from rdrec_core.errors import InputError
from training.rationale.chat import Generation
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
    request_style: Literal["auto", "classic", "modern"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    timeout_s: float = Field(default=60.0, gt=0)
    max_attempts: int = Field(default=8, ge=1)

    def generation(self) -> Generation:
        """The settings of a chat completion. Raises InputError without a model."""
        if not self.model:
            raise InputError("--model is missing: the name that the server knows the model by", field="--model")
        return Generation(self.model, self.temperature, self.max_completion_tokens, self.structured)


def open_teacher(spec: str, options: TeacherOptions) -> Teacher:
    """The teacher named by `spec`; a server's key is read from the environment here.

    Raises InputError naming --teacher or the option that is missing.
    """
    kind, _, target = spec.partition(":")
    if kind == "extractive" and not target:
        from training.rationale.extractive import ExtractiveTeacher

        return ExtractiveTeacher()
    if kind == "openai" and target:
        from training.rationale.openai import OpenAITeacher

        key = os.environ.get("RDREC_TEACHER_API_KEY") or os.environ.get("OPENAI_API_KEY")
        return OpenAITeacher(
            target,
            options.generation(),
            concurrency=options.concurrency,
            timeout_s=options.timeout_s,
            max_attempts=options.max_attempts,
            key=SecretStr(key) if key else None,
            modern=options.request_style == "modern",
        )
    if kind == "transformers" and target:
        from training.rationale.local_model import LocalModelTeacher

        return LocalModelTeacher(
            target,
            batch_size=options.batch_size,
            temperature=options.temperature,
            max_completion_tokens=options.max_completion_tokens,
            dtype=options.dtype,
        )
    raise InputError(f"--teacher {spec!r} is not known; use {SPECS}", field="--teacher")
