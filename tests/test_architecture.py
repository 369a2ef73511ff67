"""What the import contracts cannot say: imports that only functions may hold, and packages without Spark."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_SPARK = ("conf", "schemas", "detectors", "udfs")
IMPORT_ALL = """
import importlib, importlib.abc, pkgutil, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
for package in {packages!r}:
    folder = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(folder, package + "."):
        importlib.import_module(module.name)
        print(module.name)
"""


def _import_all(packages: tuple[str, ...], blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = IMPORT_ALL.format(packages=packages, blocked=blocked)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def _modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    ("packages", "blocked"),
    [
        (WITHOUT_SPARK, ("pyspark", "delta", "py4j")),
        (("udfs",), ("pyspark", "delta", "py4j", "torch", "torchvision", "detectors")),
        (("conf", "schemas"), ("pyspark", "torch", "numpy", "pandas", "pyarrow", "udfs", "detectors")),
    ],
    ids=["without Spark", "calculations without models", "settings without engines"],
)
def test_every_module_imports_without(packages: tuple[str, ...], blocked: tuple[str, ...]) -> None:
    done = _import_all(packages, blocked)
    assert done.returncode == 0, done.stderr
    files = [path.relative_to(ROOT) for package in packages for path in _modules(package)]
    names = {
        ".".join((file.parent if file.stem == "__init__" else file.with_suffix("")).parts) for file in files
    }
    assert set(done.stdout.split()) == names - set(packages)


def test_the_block_works() -> None:
    done = _import_all(("pipelines",), ("pyspark",))
    assert done.returncode != 0
    assert "pyspark is blocked" in done.stderr


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import: not those in functions or under TYPE_CHECKING."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from _module_level(statement.orelse)
            continue
        yield statement
        for name in ("body", "orelse", "finalbody"):
            yield from _module_level(getattr(statement, name, []))


def _imported(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [(statement.module or "").partition(".")[0]]
    return []


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("udfs", {"detectors", "torch", "torchvision"}),
        ("pipelines", {"detectors", "torch", "torchvision"}),
        ("jobs", {"detectors", "udfs", "torch"}),
    ],
)
def test_models_are_imported_where_they_run(package: str, never: set[str]) -> None:
    found = {
        (path.stem, name)
        for path in _modules(package)
        for statement in _module_level(ast.parse(path.read_text(encoding="utf-8")).body)
        for name in _imported(statement)
    }
    assert {(module, name) for module, name in found if name in never} == set()


def test_every_package_is_in_the_wheel() -> None:
    listed = next(
        ast.literal_eval(keyword.value)
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "packages"
    )
    folders = {path.parent for package in listed for path in _modules(package)}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(listed)
    for folder in folders:
        assert (folder / "__init__.py").is_file()
