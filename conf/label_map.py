"""Label maps: class names of a source to those wanted here, many to one, or to none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conf.errors import QuarryError, nearest
from conf.yaml_file import read_mapping, shipped_file

MAP_FOLDER = Path(__file__).parent / "label_maps"
REST = "*"


@dataclass(frozen=True)
class LabelMap:
    """What becomes of each class.

    Attributes:
        source: File the map comes from, for messages.
        targets: Class name to the name wanted, or to None where its boxes are dropped; the name `*` stands
            for all classes that are not named.
    """

    source: str
    targets: Mapping[str, str | None]

    def target(self, name: str) -> str | None:
        """The wanted name of one class, None where it is dropped.

        Raises:
            QuarryError: The map does not mention it.
        """
        if name in self.targets or REST in self.targets:
            return self.targets[name if name in self.targets else REST]
        raise QuarryError(
            f"label map {self.source}: class {name!r} is not mentioned; {nearest(name, self.targets)}; "
            f"name its target, null to drop it, or catch the rest with '{REST}': null"
        )

    def of(self, classes: Iterable[str], *, all_classes: bool) -> dict[str, str | None]:
        """The wanted name of each class, None where it is dropped.

        Args:
            classes: Class names of the source.
            all_classes: These are all classes the source has, rather than those that were met in its boxes.

        Raises:
            QuarryError: A class the map does not mention; every class is dropped; or, beside `*`, which would
                hide the slip, a name that is no class of the source.
        """
        wanted = list(dict.fromkeys(classes))
        named = self.targets.keys() - {REST}
        found = {name: self.target(name) for name in wanted}
        for name in sorted(named - set(wanted)):
            if all_classes and REST in self.targets:
                raise QuarryError(
                    f"label map {self.source}: {name!r} is no class of the source; {nearest(name, wanted)}"
                )
        if wanted and set(found.values()) == {None}:
            raise QuarryError(
                f"label map {self.source}: drops every class of the source: {', '.join(wanted)}"
            )
        return found


def load_label_map(name_or_file: str) -> LabelMap:
    """A shipped label map by its name, or one from a YAML file `source name: target name, or null to drop`.

    Raises:
        QuarryError: No such map, not YAML, or not a mapping of names to names.
    """
    path = shipped_file(name_or_file, MAP_FOLDER, "label map")
    content = read_mapping(path, "source names to target names")
    if not content:
        raise QuarryError(f"label map {path}: expected lines `source name: target name`, got none")
    return LabelMap(str(path), {_name(key, path): _target(value, path) for key, value in content.items()})


def _target(value: object, path: Path) -> str | None:
    return None if value is None else _name(value, path)


def _name(value: object, path: Path) -> str:
    # YAML reads a bare `no` as false and 7 as a number; a class may be called 7.
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise QuarryError(f"label map {path}: expected the name of a class, got {value!r}; put it in quotes")
    return str(value)
