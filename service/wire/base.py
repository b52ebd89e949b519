"""What every body that is sent or received shares, and the body that tells of an error. Knows no endpoint."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestBody(BaseModel):
    """Base of every request: unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """Base of what is sent."""

    model_config = ConfigDict(frozen=True)


class FieldError(Answer):
    """One wrong field of a request."""

    field: str
    message: str


class ProblemAnswer(Answer):
    """RFC 9457 problem details."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:rdrec:problem:unknown-item",
                    "title": "Unknown item",
                    "status": 404,
                    "detail": "item 'nope' is not in the catalogue of 240 items",
                    "request_id": "0f8e1c6a5d3b4a7f",
                    "field": "history[3]",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    field: str | None = None
    errors: list[FieldError] | None = None
