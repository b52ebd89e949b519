"""Benchmarks run for minutes and in no other test, so what they import of the house is looked up in its source."""

import argparse
import ast
import importlib
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "benchmarks").glob("*.py"))
HOUSE = ("benchmarks", "rdrec_client", "rdrec_core", "service", "training")


def _names(path: Path) -> set[str]:
    """What a module or package offers: its definitions, assignments and imports at any depth, and its modules."""
    names = {entry.stem for entry in path.iterdir()} if path.is_dir() else set()
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text())) if file.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_benchmark_imports_of_the_house_is_there(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in HOUSE:
            there = _names(ROOT.joinpath(*(node.module or "").split(".")))
            missing = {alias.name for alias in node.names} - there
            assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize("name", [file.stem for file in FILES if "def main(" in file.read_text()])
def test_make_bench_can_call_every_benchmark_with_nothing_but_quick(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class UnderstoodError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parse(parser, ["--quick"])
        raise UnderstoodError

    main = importlib.import_module(f"benchmarks.{name}").main
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(UnderstoodError):
        main()
