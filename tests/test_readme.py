"""The README's commands work as they stand, and its claims about the tree are true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUN_ALL = """
from conf.load import load_settings
from jobs.quarry import main
from jobs.session import build_session
for number, flags in enumerate({every!r}):
    if number == 2:
        build_session(load_settings("demo").spark, "README")
    assert main(flags) == 0, flags
"""
README = (ROOT / "README.md").read_text(encoding="utf-8")


def bash_lines() -> list[str]:
    """Every command of the README's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def quarry(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs `quarry` as a user would, in a folder of its own."""
    return python(["-m", "jobs.quarry", *arguments], cwd)


def python(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python with Quarry on its path, in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_own_lake_commands_run_as_they_stand(tmp_path: Path) -> None:
    commands = [shlex.split(line) for line in bash_lines() if line.startswith("quarry ")]
    assert len(commands) >= 8
    # One process for all: ten Java starts would take minutes and show nothing more. The first two commands
    # start and stop Spark as the default profile says; the others find a session, as in a notebook.
    every = [command[1:] for command in commands]
    done = python(["-c", RUN_ALL.format(every=every)], tmp_path)
    assert done.returncode == 0, f"{done.stdout[-800:]}\n{done.stderr[-2000:]}"
    assert "harbor" in done.stdout and "town" in done.stdout
    assert (tmp_path / "my_report.html").stat().st_size > 50_000
    assert sorted(path.name for path in (tmp_path / "my_manifests" / "cycle-1").iterdir()) == [
        "hardest-pixel_adj_false.coco",
        "hardest-pixel_adj_false.label_studio",
        "random.coco",
        "random.label_studio",
    ]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_exist(target: str) -> None:
    assert any(line.startswith(f"make {target}") for line in bash_lines())
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_folder_table_names_the_folders_that_are_there() -> None:
    named = set(re.findall(r"^\| `(\w+)/` \|", README, flags=re.M))
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= named | {"benchmarks"} and named <= {path.name for path in ROOT.iterdir()}


def test_linked_pictures_exist() -> None:
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
