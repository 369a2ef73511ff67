"""The ONNX mapping in YAML: what is wrong is named with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import QuarryError
from conf.load import load_settings
from conf.onnx_spec import OnnxOutputSpec, OnnxSpec

BAD = {
    "{boxes: b}": "detector.onnx.scores: Field required",
    "{boxes: b, scores: s, activaton: none}": "onnx.activaton: unknown setting; did you mean 'activation'",
    "{boxes: {output: b, colums: [0, 4]}, scores: s}": "colums: unknown setting; did you mean 'columns'",
    "{boxes: {output: b, columns: [0, 5]}, scores: s}": "boxes.columns: expected four columns",
    "{boxes: {output: b, columns: [4, 0]}, scores: s}": "expected first < end",
    "{boxes: '', scores: s}": "boxes.output: String should have at least 1 character",
    "{boxes: b, scores: s, layout: nwhc}": "layout: Input should be 'nchw'",
    "{boxes: b, scores: s, std: [1, 0, 1]}": "std: expected three numbers above 0",
    "{boxes: b, scores: s, divisor: 0}": "divisor: Input should be greater than 0",
    "{boxes: b, scores: s, mean: [.nan, 0, 0]}": "finite",
    "{boxes: b, scores: {output: s, columns: [4, 6]}, labels: l}": "scores has the best class's score only",
    "{boxes: b, scores: s, labels: {output: l, columns: [4, 6]}}": "labels.columns: expected one column",
    "{boxes: b, scores: s, objectness: {output: o, columns: [4, 6]}}": "objectness.columns: expected one",
    "{boxes: b, scores: s, labels: l, activation: softmax}": "labels go with neither",
    "{boxes: b, scores: s, labels: l, multi_label: true}": "labels go with neither",
    "{boxes: b, scores: s, activation: sigmoid, background: first}": "sigmoid has no background column",
    "{boxes: b, scores: s, resize: none, input_hw: [64, 64]}": "input_hw has no use with resize: none",
}


def load(tmp_path: Path, mapping: str) -> OnnxSpec:
    path = tmp_path / "mine.yaml"
    path.write_text(f"detector:\n  weights: model.onnx\n  onnx: {mapping}\n")
    spec = load_settings(str(path)).detector.onnx
    assert spec is not None
    return spec


@pytest.mark.parametrize("mapping", BAD)
def test_a_bad_mapping_names_key_and_reason(mapping: str, tmp_path: Path) -> None:
    with pytest.raises(QuarryError) as caught:
        load(tmp_path, mapping)
    assert "detector.onnx" in str(caught.value)
    assert BAD[mapping] in str(caught.value)


def test_a_name_stands_for_all_of_an_output(tmp_path: Path) -> None:
    spec = load(tmp_path, "{boxes: output0, scores: {output: output0, columns: [4, 84]}, transposed: true}")
    assert spec.boxes == OnnxOutputSpec(output="output0")
    assert spec.scores.columns == (4, 84)
    assert OnnxSpec.model_validate_json(spec.model_dump_json()) == spec
    assert (spec.resize, spec.color, spec.divisor, spec.layout) == ("letterbox", "rgb", 255.0, "nchw")


def test_a_plugin_is_named_as_module_and_function() -> None:
    assert load_settings(overrides=["detector.plugin=a.b:c"]).detector.plugin == "a.b:c"
    for name in ("a.b", "a:b.c", "a b:c", "os;x:y"):
        with pytest.raises(QuarryError, match="detector.plugin: expected module:function"):
            load_settings(overrides=[f"detector.plugin='{name}'"])
