"""Label files are found whatever their names, and their content alone makes an import's identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from udfs.label_files import import_id_batches, label_file_batches

READ_AS = ("coco", "train", "c1", [("car", "vehicle"), ("it's", None)])


def folders(*uris: str) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pydict({"folder": pa.array(uris, pa.string())})


def found(*uris: str) -> list[str]:
    batches = label_file_batches(folders(*uris), (".json", ".ndjson"))
    return sorted(uri for batch in batches for uri in batch.column("uri").to_pylist())


def import_id(digests: list[str], cuts: int, read_as: tuple[object, ...] = READ_AS) -> str:
    parts = [digests[i : i + cuts] for i in range(0, len(digests), cuts)]
    batches = (pa.RecordBatch.from_pydict({"sha256": pa.array(part, pa.string())}) for part in parts)
    (batch,) = import_id_batches(batches, read_as)
    (found,) = batch.column("import_id").to_pylist()
    return str(found)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_files_of_all_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("udfs.label_files.ROWS_PER_BATCH", 2)
    names = ("a.json", "day=1/_annotations.coco.json", "day=1/deep er/ü %20.ndjson", "day=1/b.json")
    for name in (*names, "notes.txt", "json", "day=1/c.json.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.json").mkdir()
    expected = sorted(f"{tmp_path}/{name}" for name in names)
    assert found(str(tmp_path)) == found(f"{tmp_path}/") == expected
    assert found(f"file:{tmp_path}") == [f"file:{path}" for path in expected]
    assert found(str(tmp_path / "folder.json")) == []


@pytest.mark.parametrize("cuts", [1, 2, 3, 10])
def test_an_import_s_id_is_of_the_list_of_digests_however_it_is_cut(cuts: int) -> None:
    digests = sorted(digest(text) for text in ("one", "two", "two", "three"))
    whole = repr([digests, *READ_AS])
    assert import_id(digests, cuts) == digest(whole)[:16]


def test_another_file_a_double_one_or_another_reading_is_another_import() -> None:
    one, two = sorted((digest("one"), digest("two")))
    told_apart = [
        import_id([one], 9),
        import_id([two], 9),
        import_id([one, two], 9),
        import_id([one, one], 9),
        import_id([one, one, one], 9),
        import_id([one], 9, ("coco", "eval", "c1", [])),
        import_id([one], 9, ("coco", "eval", "c2", [])),
    ]
    assert len(set(told_apart)) == len(told_apart)
