"""The command `rdrec`: finds the commands of `training/commands` and turns their errors into an exit status.

A command is the function of the same name in `training/commands/<name>.py`; the module's MANY_VALUES, if there, names
the options that take several values at once. Only the module of the command that was asked for is imported, so that
`rdrec --help` stays quick and one broken command does not take the others with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import typer

from rdrec_core.errors import RDRecError

COMMANDS = {
    "build": "From files to a bundle, in one command.",
    "sample": "Write the made-up shop of board games and toys.",
    "collect": "Take what the service logged since the last time.",
    "prepare": "Turn reviews into a dataset folder.",
    "audit": "Report what leaks in a dataset folder.",
    "distill": "Distill rationales from the training reviews.",
    "train": "Train RDRec on a dataset folder.",
    "evaluate": "Measure a checkpoint or a bundle.",
    "baselines": "Measure what needs no T5: counting, EASE, SASRec, the item graph.",
    "fuse": "Fit the weights of the fused ranking on validation data.",
    "graph": "Build a large catalogue's item graph apart.",
    "export": "Turn a checkpoint into a servable bundle.",
    "sign": "Sign a bundle with an Ed25519 key.",
    "ablation": "Train with and without each kind of rationale.",
    "report": "Compare runs on one HTML page.",
    "batch": "Score all users offline.",
    "replay": "Play a log of events against a service.",
    "refresh": "From yesterday's model to today's, if it is no worse.",
    "profile": "Write every user's preference and every item's attributes.",
}
"""Command name -> what it does, in the order of their use."""

ERROR_STATUS = 2


def _module(command: str) -> str:
    return f"training.commands.{command}"


def _not_asked_for() -> None:
    """Stands in the help page for a command whose module stays unimported."""


def build_app(requested: str | None) -> typer.Typer:
    """The application with `requested` loaded and the other commands listed by name only."""
    app = typer.Typer(
        name="rdrec",
        help="Train, measure and export the RDRec recommender.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(lambda: None)  # keeps `rdrec NAME` even while only one command is there
    for name, summary in COMMANDS.items():
        if importlib.util.find_spec(_module(name)) is None:
            continue
        function: Callable[..., Any] = _not_asked_for
        if name == requested:
            function = getattr(importlib.import_module(_module(name)), name)
        app.command(name, short_help=summary)(function)
    return app


def repeat_options(arguments: Sequence[str], many: Collection[str]) -> list[str]:
    """`--reviews a b` as `--reviews a --reviews b` for the options in `many`: a shell's `*.gz` may follow one."""
    spread: list[str] = []
    option: str | None = None
    for word in arguments:
        if word.startswith("-"):
            option = None
        elif option is not None and spread[-1] != option:
            spread.append(option)
        spread.append(word)
        if word in many:
            option = word
    return spread


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (the command's own verdict), 2 (a usage or RDRec error)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    requested = next((word for word in arguments if not word.startswith("-")), None)
    try:
        app = build_app(requested)
        if requested in COMMANDS and (module := sys.modules.get(_module(requested))) is not None:
            arguments = repeat_options(arguments, getattr(module, "MANY_VALUES", ()))
        app(args=arguments, prog_name="rdrec")
    except RDRecError as error:
        print(f"rdrec: {error}", file=sys.stderr)
        return ERROR_STATUS
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
