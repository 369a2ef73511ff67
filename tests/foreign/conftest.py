"""Runs in an environment of its own, where none of our packages are: see `make test-foreign`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TOLERANCE_PX = 0.5
KINDS = ("image", "boxes", "verify_box", "verify_class")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--manifests", required=True, help="folder that tests.foreign.write_manifests wrote")


class Manifests:
    """The files of one format and kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.path,) = folder.glob("tasks.*")
        self.expected: dict[str, dict[str, Any]] = json.loads(self.text("expected.json"))

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def json(self, name: str) -> Any:
        return json.loads(self.text(name))

    def lines(self) -> list[Any]:
        """Of a JSON Lines file, which must hold no blank ones."""
        text = self.path.read_text(encoding="utf-8")
        assert text.endswith("\n")
        return [json.loads(line) for line in text[:-1].split("\n")]

    def by(self, key: str) -> dict[Any, dict[str, Any]]:
        """What is expected, under another of its fields than the task id."""
        images = {image[key]: image for image in self.expected.values()}
        assert len(images) == len(self.expected)
        return images

    def by_file_name(self) -> dict[str, dict[str, Any]]:
        """What is expected of each image; the boxes of several questions about it together."""
        images: dict[str, dict[str, Any]] = {}
        for image in self.expected.values():
            known = images.setdefault(image["file_name"], {**image, "boxes": []})
            known["boxes"] = known["boxes"] + image["boxes"]
        return images


@pytest.fixture(scope="session")
def manifests(request: pytest.FixtureRequest) -> Any:
    """A function of format and kind that gives their files."""
    root = Path(request.config.getoption("--manifests"))
    return lambda form, kind="image": Manifests(root / form / kind)


@pytest.fixture(scope="session")
def image_folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--manifests")) / "images"


def assert_same_boxes(found: list[tuple[str, Any]], expected: list[dict[str, Any]], what: str) -> None:
    """Fail unless the found boxes, class and x1, y1, x2, y2, are the expected ones within half a px."""
    wanted = sorted((box["label"], tuple(box["corners"])) for box in expected)
    assert [label for label, _ in sorted(found, key=_order)] == [label for label, _ in wanted], what
    for (_, corners), (_, expected_corners) in zip(sorted(found, key=_order), wanted, strict=True):
        assert tuple(corners) == pytest.approx(expected_corners, abs=TOLERANCE_PX, rel=0), what


def _order(box: tuple[str, Any]) -> tuple[str, tuple[float, ...]]:
    return box[0], tuple(float(value) for value in box[1])


def xywh(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    return left, top, left + width, top + height
