from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import QuarryError
from conf.label_map import LabelMap, load_label_map

NUIMAGES = [
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
]


def _map(folder: Path, text: str) -> LabelMap:
    (folder / "map.yaml").write_text(text, encoding="utf-8")
    return load_label_map(str(folder / "map.yaml"))


def test_the_shipped_map_makes_two_classes_of_ten() -> None:
    found = load_label_map("nuimages_ten_to_two").of(NUIMAGES, all_classes=True)
    assert list(found) == NUIMAGES
    assert [name for name, target in found.items() if target == "pedestrian"] == ["pedestrian"]
    assert [name for name, target in found.items() if target is None] == ["traffic_cone", "barrier"]
    assert sum(target == "vehicle" for target in found.values()) == 7


def test_classes_merge_and_leave_and_the_rest_is_caught(tmp_path: Path) -> None:
    two = _map(tmp_path, "car: vehicle\nvan: vehicle\n7: seven\n'*': null\n")
    assert two.of(["van", "7", "cat", "car"], all_classes=True) == {
        "van": "vehicle",
        "7": "seven",
        "cat": None,
        "car": "vehicle",
    }
    other = _map(tmp_path, "car: vehicle\n'*': other\n")
    assert other.of(["cat", "car"], all_classes=True) == {"cat": "other", "car": "vehicle"}


def test_a_class_that_is_not_mentioned_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match=r"map\.yaml: class 'pedestrain' is not .*mean 'pedestrian'\?"):
        _map(tmp_path, "pedestrian: person\ncar: car\n").of(["car", "pedestrain"], all_classes=True)


def test_a_name_that_is_no_class_is_refused_where_the_rest_would_hide_it(tmp_path: Path) -> None:
    text = "pedestrain: person\n'*': null\n"
    with pytest.raises(QuarryError, match=r"'pedestrain' is no class.*mean 'pedestrian'\?"):
        _map(tmp_path, text).of(["car", "pedestrian"], all_classes=True)
    assert _map(tmp_path, "truck: car\ncar: car\n").of(["car"], all_classes=True) == {"car": "car"}
    assert _map(tmp_path, "truck: car\n'*': x\n").of(["cow"], all_classes=False) == {"cow": "x"}


def test_a_map_that_drops_everything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match="drops every class"):
        _map(tmp_path, "'*': null\n").of(["car", "cow"], all_classes=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no: car", "False; put it in quotes"),
        ("car: yes", "True; put it in quotes"),
        ("car: [a, b]", r"\['a', 'b'\]"),
        ("car: ''", "name of a class"),
        ("car: 1.5", "1.5"),
        ("- car", "got list"),
        ("", "got none"),
        ("a: b: c", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_a_bad_map_is_named_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(QuarryError, match=rf"map\.yaml: .*{message}"):
        _map(tmp_path, text)


def test_a_missing_map_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match="no_such: no such file.*shipped ones: nuimages_ten_to_two"):
        load_label_map("no_such")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QuarryError, match="not valid YAML"):
        load_label_map(str(tmp_path / "binary.yaml"))
