import subprocess
import sys
import types

import pytest

from rdrec_core.errors import DatasetError
from training import cli

HEAVY = ("torch", "transformers", "polars", "pyarrow", "sklearn", "onnxruntime")


def test_help_names_the_commands_and_imports_nothing_heavy():
    script = (
        "import sys; from training.cli import main; status = main(['--help']);"
        f"print('HEAVY', [m for m in {HEAVY} if m in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    for name in ("sample", "prepare", "audit"):
        assert name in done.stdout


def test_an_unknown_command_is_a_usage_error(capsys):
    assert cli.main(["no-such-command"]) == 2
    assert "no-such-command" in capsys.readouterr().err


@pytest.fixture
def command(monkeypatch):
    """Install a function as the command `report` (any listed name would do)."""

    def install(function, **attributes):
        module = types.ModuleType("training.commands.report")
        module.report = function
        module.__spec__ = types.SimpleNamespace(name=module.__name__)  # find_spec asks for one
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


def test_a_domain_error_becomes_a_message_and_status_2(command, capsys):
    def report() -> None:
        raise DatasetError("items.parquet is missing")

    command(report)
    assert cli.main(["report"]) == 2
    assert capsys.readouterr().err == "rdrec: items.parquet is missing\n"


def test_a_commands_own_status_is_kept(command):
    import typer

    def report() -> None:
        raise typer.Exit(1)

    command(report)
    assert cli.main(["report"]) == 1


def test_a_fault_of_ours_is_not_dressed_up(command):
    def report() -> None:
        raise ZeroDivisionError

    command(report)
    with pytest.raises(ZeroDivisionError):
        cli.main(["report"])


@pytest.mark.parametrize(
    ("arguments", "spread"),
    [
        (
            ["prepare", "--reviews", "a", "b", "--out", "o"],
            ["prepare", "--reviews", "a", "--reviews", "b", "--out", "o"],
        ),
        (["prepare", "--reviews", "a", "--reviews", "b"], ["prepare", "--reviews", "a", "--reviews", "b"]),
        (["prepare", "--out", "o", "p"], ["prepare", "--out", "o", "p"]),
        (["prepare", "--reviews", "a", "--force", "p"], ["prepare", "--reviews", "a", "--force", "p"]),
    ],
)
def test_an_option_with_many_values_is_repeated(arguments, spread):
    assert cli.repeat_options(arguments, {"--reviews"}) == spread
