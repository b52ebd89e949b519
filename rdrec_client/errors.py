"""What a call raises. Every error is an RDRecClientError; an answer with a problem is a ProblemError."""

from __future__ import annotations

from rdrec_client.models import Problem


class RDRecClientError(Exception):
    """Base of every error of this package."""


class UnreachableError(RDRecClientError):
    """No answer came: no connection, or no answer in time. Of a write nobody knows whether it was kept; repeat it."""


class UnreadableAnswerError(RDRecClientError):
    """An answer came that is not this API's: is something else listening there, or is it a newer service?"""


class ProblemError(RDRecClientError):
    """The service said no (RFC 9457). `problem.type` is stable and made to be compared."""

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        at = f" ({problem.field})" if problem.field else ""
        super().__init__(f"{problem.status} {problem.title}{at}: {problem.detail} [request {problem.request_id}]")
        self.problem = problem
        self.retry_after_s = retry_after_s
        """From the header Retry-After; None where the service named no time."""

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.problem.status

    @property
    def slug(self) -> str:
        """Last part of the type, such as `unknown-item`."""
        return self.problem.type.rpartition(":")[2]
