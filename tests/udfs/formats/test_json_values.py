"""JSON of label files, read with limits."""

from __future__ import annotations

import io
import json
import tempfile
from zipfile import ZipFile

import pytest

from udfs.formats import json_values
from udfs.formats.json_values import LARGEST_DOCUMENT_BYTES, json_document, json_items
from udfs.formats.registry import FORMATS
from udfs.formats.returned import NotThisFormat


def test_a_document_is_read_from_where_the_stream_stands() -> None:
    stream = io.BytesIO(b"??[1, 2]")
    stream.seek(2)
    assert json_document(stream) == [1, 2]


@pytest.mark.parametrize("form", ["coco", "label_studio", "labelbox", "scale"])
def test_a_file_too_large_to_be_held_is_refused_with_the_remedy(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "LARGEST_DOCUMENT_BYTES", 1_000)
    read = FORMATS[form].read
    assert read is not None
    data = json.dumps([{"id": k} for k in range(200)]).encode()
    with pytest.raises(NotThisFormat, match=r"at most 1,000 bytes, got 2,\d+; split the file"):
        list(read(io.BytesIO(data)))
    with pytest.raises(NotThisFormat, match="expected") as caught:
        list(read(io.BytesIO(data[:890].rpartition(b",")[0] + b"]")))
    assert "too large" not in str(caught.value)


def test_nothing_is_read_of_a_file_that_is_too_large() -> None:
    with tempfile.TemporaryFile() as stream:  # a hole, which takes no room
        stream.write(b"[")
        stream.truncate(LARGEST_DOCUMENT_BYTES + 1)
        with pytest.raises(NotThisFormat, match="too large"):
            list(json_items(stream))


@pytest.mark.parametrize("form", ["coco", "ground_truth", "label_studio", "labelbox", "scale"])
def test_an_archive_is_refused_with_the_remedy(form: str) -> None:
    archive = io.BytesIO()
    with ZipFile(archive, "w") as stream:
        stream.writestr("result.json", "[]")
    archive.seek(0)
    read = FORMATS[form].read
    assert read is not None
    with pytest.raises(NotThisFormat, match="zip archive, not JSON: unpack it"):
        list(read(archive))


def test_another_export_of_label_studio_is_refused_with_the_right_one() -> None:
    read = FORMATS["label_studio"].read
    assert read is not None
    with pytest.raises(NotThisFormat, match=r"not JSON: .*; export the project as JSON \(not JSON-MIN"):
        list(read(io.BytesIO(b"id,label\n1,car\n")))
