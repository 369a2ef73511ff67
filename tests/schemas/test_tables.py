from __future__ import annotations

import re

import pyarrow as pa
import pytest

from schemas.table import Column, Table
from schemas.tables import (
    DETECTION_DDL,
    DETECTIONS,
    GROUND_TRUTH,
    HARDNESS,
    IMAGES,
    MANIFESTS,
    METRICS,
    TABLES,
    TRUTH_BOX_DDL,
)
from udfs.detection_rows import DETECT_SCHEMA, DETECTION_TYPE, TIMINGS
from udfs.ingest import HEADER_SCHEMA
from udfs.labels import LABEL_SCHEMA, TRUTH_BOX_TYPE
from udfs.manifest_files import FILE_SCHEMA
from udfs.metric_rows import METRIC_SCHEMA
from udfs.score import HARDNESS_SCHEMA

# What may be unknown though rows are told apart by it: the model of an undetected file, the image of a box.
NULLABLE_KEYS = {"quarantine": {"model_id"}, "label_rejects": {"file_name"}} | {
    "ground_truth_history": {"task_id"}
}
SCALARS = {
    "STRING": pa.string(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
}
CONTRACT = {
    "images": "image_id uri dataset partitions width height sequence_id frame_index size_bytes mtime "
    "ingest_ts",
    "models": "model_id name uri classes head parent created_ts",
    "detections": "image_id model_id view width height detections n_detections latency_ms run_id ts",
    "quarantine": "image_id uri stage error_class message attempts first_ts last_ts resolved",
    "ground_truth": "image_id boxes complete cycle_id ts",
    "ground_truth_history": "image_id boxes complete split cycle_id annotator annotated_ts import_id "
    "task_id ts",
    "label_imports": "import_id cycle_id vendor split source n_files n_images n_boxes n_rejected ts",
    "label_rejects": "import_id source item_kind item_id file_name image_id reason ts",
    "hardness": "image_id model_id query hardness std_error estimator n_samples eta settings_hash run_id",
    "acquisition": "cycle_id strategy unit rank image_id detection_id score cost_s settings_hash",
    "near_misses": "cycle_id strategy unit rank image_id detection_id score reason settings_hash",
    "manifests": "cycle_id vendor path n_tasks n_images n_boxes cost_s sha256 status ts",
    "sent_tasks": "cycle_id strategy task_id kind image_id detection_id rank n_boxes cost_s ts",
    "cycles": "cycle_id parent model_id state settings started ended counts",
    "metrics": "cycle_id model_id metric query method value low high n",
    "quality": "cycle_id stage table_name expectation description passed severity observed n_unexpected "
    "examples ts",
}


def arrow_type(ddl: str) -> pa.DataType:
    """The Arrow type that Spark gives a DDL type; KeyError for anything that is no type."""
    ddl = ddl.strip()
    if "<" not in ddl:
        return SCALARS[ddl]
    outer, _, rest = ddl.partition("<")
    assert rest.endswith(">"), ddl
    parts = _top_level_parts(rest[:-1])
    if outer == "ARRAY":
        (item,) = parts
        return pa.list_(arrow_type(item))
    if outer == "MAP":
        key, value = parts
        return pa.map_(arrow_type(key), arrow_type(value))
    assert outer == "STRUCT", ddl
    return pa.struct(
        [(name.strip(), arrow_type(kind)) for name, _, kind in (p.partition(":") for p in parts)]
    )


def _top_level_parts(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    assert depth == 0, text
    return parts


def _types(table: Table) -> dict[str, pa.DataType]:
    return {column.name: arrow_type(column.ddl_type) for column in table.columns}


def _same(one: pa.DataType, other: pa.DataType) -> bool:
    """Equal, whatever the lists' item field is called."""
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _same(one.value_type, other.value_type)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        names = [[field.name for field in kind] for kind in (one, other)]
        return names[0] == names[1] and all(_same(a.type, b.type) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_sound(table: Table) -> None:
    names = table.column_names
    assert len(set(names)) == len(names)
    assert set(table.key) <= set(names)
    assert set(table.partition_by) <= set(table.key)
    assert len(set(table.key)) == len(table.key) > 0
    assert len(_types(table)) == len(names)
    by_name = {column.name: column for column in table.columns}
    nullable = {key for key in table.key if by_name[key].nullable}
    assert nullable == NULLABLE_KEYS.get(table.name, set())
    assert table.comment and all(column.comment for column in table.columns)
    for check, condition in table.checks:
        assert re.fullmatch(r"[a-z_]+", check)
        assert any(re.search(rf"\b{name}\b", condition) for name in names)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_times_are_timestamps_and_sides_are_whole_pixels(table: Table) -> None:
    for name, kind in _types(table).items():
        if name == "ts" or name.endswith("_ts"):
            assert kind == SCALARS["TIMESTAMP"]
        if name in ("width", "height"):
            assert kind == pa.int32()


def test_the_contract_s_tables_and_columns_are_there() -> None:
    assert [table.name for table in TABLES] == list(CONTRACT)
    for table in TABLES:
        assert set(CONTRACT[table.name].split()) <= set(table.column_names)
    assert {"detection_id", "label", "label_name", "score", "x1", "y1", "x2", "y2"} <= {
        field.name for field in arrow_type(DETECTION_DDL)
    }
    assert {"label", "x1", "y1", "x2", "y2", "iscrowd", "status", "source", "detection_id"} <= {
        field.name for field in arrow_type(TRUTH_BOX_DDL)
    }


@pytest.mark.parametrize(("arrow", "ddl"), [(DETECTION_TYPE, DETECTION_DDL), (TRUTH_BOX_TYPE, TRUTH_BOX_DDL)])
def test_boxes_leave_the_workers_as_the_tables_hold_them(arrow: pa.DataType, ddl: str) -> None:
    assert _same(arrow, arrow_type(ddl))


@pytest.mark.parametrize(
    ("schema", "table", "others"),
    [
        (DETECT_SCHEMA, DETECTIONS, {"uri", "error_class", "message", "gpu_percent", *TIMINGS}),
        (HEADER_SCHEMA, IMAGES, {"error_class", "message"}),
        (HARDNESS_SCHEMA, HARDNESS, set()),
        (METRIC_SCHEMA, METRICS, set()),
        (
            LABEL_SCHEMA,
            GROUND_TRUTH,
            {"source", "item_kind", "item_id", "file_name", "quarry_image_id", "task_id", "reason"}
            | {"said_width", "said_height", "is_image_task"},
        ),
        (FILE_SCHEMA, MANIFESTS, {"file_name"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_rows_leave_the_workers_with_the_types_of_their_table(
    schema: pa.Schema, table: Table, others: set[str]
) -> None:
    types = _types(table)
    assert set(schema.names) - set(types) == others
    shared = set(schema.names) & set(types)
    assert {name for name in shared if not _same(schema.field(name).type, types[name])} == set()


def test_a_column_s_comment_is_quoted() -> None:
    column = Column(name="a", ddl_type="INT", comment="the lake's", nullable=False)
    assert column.ddl() == "`a` INT NOT NULL COMMENT 'the lake''s'"
    table = Table(name="t", comment="t", columns=(column,), key=("a",))
    assert table.ddl() == "`a` INT"
