"""The one error hierarchy. Knows nothing of HTTP: `service/wire/problems.py` maps these to status codes."""


class RDRecError(Exception):
    """Base of every error that RDRec raises on purpose; its text is fit to be shown to a user."""


class InputError(RDRecError):
    """A caller's input is wrong.

    `field` names the offending field (a request field, a CLI option, a column) and the message says what would be
    right.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnknownItemError(InputError):
    """An external item id that the catalogue does not hold."""


class DatasetError(RDRecError):
    """A dataset folder or a source file that cannot be read."""


class CheckpointError(RDRecError):
    """A checkpoint folder that is missing, incomplete, or from another configuration."""


class BundleError(RDRecError):
    """A bundle that is missing a file, was altered, or has a newer schema; the message names the file."""


class ExportCheckError(BundleError):
    """An exported graph disagrees with the reference engine; nothing was written."""


class EngineError(RDRecError):
    """The engine failed while it computed an answer."""
