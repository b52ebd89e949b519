"""What must not be loaded, tried in a fresh interpreter: the serving side stands without the training stack."""

import subprocess
import sys

import pytest

TRAINING_ONLY = ("torch", "transformers", "polars", "pyarrow", "scipy", "sklearn", "onnx", "matplotlib")


@pytest.mark.parametrize(
    "module",
    [
        "service.web.app",
        "rdrec_core.bundle",
        "rdrec_core.ranking",
        "rdrec_core.engines.onnx_engine",
        "rdrec_core.item_graph",
    ],
)
def test_serving_modules_import_nothing_of_the_training_stack(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {TRAINING_ONLY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_command_line_answers_help_without_torch() -> None:
    code = (
        "import sys\nfrom training.cli import build_app\nfrom typer.testing import CliRunner\n"
        "result = CliRunner().invoke(build_app(None), ['--help'])\nassert result.exit_code == 0, result.output\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().splitlines()[-1] == "False"
