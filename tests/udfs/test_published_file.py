from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from conf.errors import QuarryError
from udfs import published_file
from udfs.published_file import file_sha256, move_file, published, remove_abandoned, remove_files


class BucketLike:
    """As an object store: no folders, no rename, and a stream publishes what it has when it is closed."""

    type_name = "s3"

    def __init__(self, root: Path) -> None:
        self.root = root

    def open_output_stream(self, path: str) -> Any:
        return pafs.LocalFileSystem().open_output_stream(str(self.root / path))

    def copy_file(self, source: str, target: str) -> None:
        pafs.LocalFileSystem().copy_file(str(self.root / source), str(self.root / target))

    def delete_file(self, path: str) -> None:
        pafs.LocalFileSystem().delete_file(str(self.root / path))


@pytest.fixture(params=["file system", "object store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "object store":
        monkeypatch.setattr(
            published_file, "filesystem_and_path", lambda uri: (BucketLike(tmp_path), Path(uri).name)
        )
    return tmp_path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_whole_text_appears_at_the_end(folder: Path) -> None:
    text = "line ü\n" * 400_000
    with published(str(folder / "a.txt")) as stream:
        stream.write(text)
        assert "a.txt" not in _names(folder)
    assert _names(folder) == ["a.txt"]
    assert (folder / "a.txt").read_bytes() == text.encode()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("written", ["", "part", "part" * 100_000])
def test_an_error_leaves_nothing(folder: Path, error: type[BaseException], written: str) -> None:
    with pytest.raises(error), published(str(folder / "a.txt")) as stream:
        stream.write(written)
        raise error
    assert _names(folder) == []


def test_an_error_leaves_the_old_file_as_it_was(folder: Path) -> None:
    (folder / "a.txt").write_text("old")
    with pytest.raises(ValueError, match="stop"), published(str(folder / "a.txt")) as stream:
        stream.write("new")
        raise ValueError("stop")
    assert (folder / "a.txt").read_text() == "old"
    assert _names(folder) == ["a.txt"]


def test_an_old_file_is_replaced(folder: Path) -> None:
    (folder / "a.txt").write_text("old and longer")
    with published(str(folder / "a.txt")) as stream:
        stream.write("new")
    assert (folder / "a.txt").read_text() == "new"
    assert _names(folder) == ["a.txt"]


def test_a_file_gets_another_name(folder: Path) -> None:
    (folder / "a.txt").write_text("x")
    (folder / "b.txt").write_text("from an earlier try")
    move_file(str(folder / "a.txt"), str(folder / "b.txt"))
    assert _names(folder) == ["b.txt"] and (folder / "b.txt").read_text() == "x"
    with pytest.raises(QuarryError, match="cannot be moved"):
        move_file(str(folder / "a.txt"), str(folder / "c.txt"))


def test_files_of_a_name_go_away_but_for_those_to_keep(tmp_path: Path) -> None:
    for name in ("tasks-1.json", "tasks-2.json", "tasks-1.json.0a.part", "my tasks-1.json", "README.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "tasks-3.json").mkdir()
    remove_files(str(tmp_path), re.compile("tasks-[0-9].*"), keep={"tasks-2.json"})
    assert _names(tmp_path) == ["README.txt", "my tasks-1.json", "tasks-2.json", "tasks-3.json"]
    remove_files(str(tmp_path / "nowhere"), re.compile(".*"))


@pytest.mark.parametrize(("changed", "goes"), [((), True), (("a/b.txt",), False), (("",), False)])
def test_a_folder_that_nobody_works_on_goes_away(
    tmp_path: Path, changed: tuple[str, ...], goes: bool
) -> None:
    (tmp_path / ".0a" / "a").mkdir(parents=True)
    (tmp_path / ".0a" / "a" / "b.txt").write_text("x")
    for path in (*(tmp_path / ".0a").rglob("*"), tmp_path / ".0a"):
        os.utime(path, (time.time() - 100,) * 2)
    for name in changed:
        os.utime(tmp_path / ".0a" / name)
    (tmp_path / ".0b").write_text("a file")
    (tmp_path / "0c").mkdir()
    remove_abandoned(str(tmp_path), re.compile(r"\.[0-9a-f]{2}"), older_than_s=50.0)
    assert _names(tmp_path) == [*([] if goes else [".0a"]), ".0b", "0c"]
    remove_abandoned(str(tmp_path / "nowhere"), re.compile(".*"), older_than_s=0.0)


@pytest.mark.parametrize("name", ["new folder/with %20/a.txt", "a.txt"])
@pytest.mark.parametrize("style", ["{}", "file:{}", "file://{}"])
def test_folders_are_made_and_names_are_literal(tmp_path: Path, name: str, style: str) -> None:
    with published(style.format(tmp_path / name)) as stream:
        stream.write("x")
    assert (tmp_path / name).read_text() == "x"


def test_a_bare_name_is_written_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with published("a.txt") as stream:
        stream.write("x")
    assert (tmp_path / "a.txt").read_text() == "x"


@pytest.mark.parametrize("place", ["a file/b.txt", "a folder", "b.txt"])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "a folder" / "full").mkdir(parents=True)
    before = _names(tmp_path)
    with (
        pytest.raises(QuarryError, match=f"{place}: cannot be written"),
        published(str(tmp_path / place)) as stream,
    ):
        if place == "b.txt":
            raise OSError("No space left on device")
        stream.write("x")
    assert _names(tmp_path) == before


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a b").write_bytes(content)
    assert file_sha256(str(tmp_path / "a b")) == hashlib.sha256(content).hexdigest()
    with pytest.raises(QuarryError, match="b: cannot be read"):
        file_sha256(str(tmp_path / "b"))
