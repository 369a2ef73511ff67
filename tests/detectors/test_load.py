"""Checkpoints: the round trip, and every way in which weights do not fit."""

from __future__ import annotations

import inspect
import io
import pickle
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from conf.errors import QuarryError
from conf.settings import DetectorSettings
from detectors.architectures import build_model, known_architectures, torchvision_architectures
from detectors.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from detectors.load import describe_detector, load_detector
from detectors.torchvision_weights import ZERO_EPSILON_WEIGHTS, _class_count
from tests.detectors.tiny_detectors import CLASSES, TINY_SIZE_PX, random_images, random_model


def save_random(path: Path, *, half: bool = True, **changes: Any) -> str:
    values: dict[str, Any] = {
        "architecture": "small_fasterrcnn",
        "classes": CLASSES,
        "head": "softmax",
        "weights": dict(random_model("small_fasterrcnn").state_dict()),
        "recipe": {"seed": 3},
        **TINY_SIZE_PX,
        **changes,
    }
    save_checkpoint(Checkpoint(**values), str(path), half=half)
    return str(path)


def test_round_trip(tmp_path: Path) -> None:
    full = load_checkpoint(save_random(tmp_path / "full.pt", half=False))
    for key, value in random_model("small_fasterrcnn").state_dict().items():
        assert torch.equal(full.weights[key], value)
    assert (full.classes, full.min_size, full.max_size, full.recipe) == (CLASSES, 96, 160, {"seed": 3})
    half_uri = save_random(tmp_path / "half.pt")
    assert Path(half_uri).stat().st_size < 0.6 * (tmp_path / "full.pt").stat().st_size
    half = load_checkpoint(half_uri)
    assert all(v.dtype != torch.float16 for v in half.weights.values())
    save_checkpoint(half, str(tmp_path / "again.pt"))
    first = load_detector(DetectorSettings(weights=half_uri), "cpu")
    again = load_detector(DetectorSettings(weights=str(tmp_path / "again.pt"), name="other"), "cpu")
    assert first.model_id == again.model_id
    assert (first.name, again.name, first.classes, first.head) == ("street", "other", CLASSES, "softmax")
    images = random_images([(120, 200)])
    np.testing.assert_array_equal(first.predict(images)[0].scores, again.predict(images)[0].scores)


def test_identity_follows_weights_and_settings(tmp_path: Path) -> None:
    uri = save_random(tmp_path / "a.pt")
    reference = describe_detector(DetectorSettings(weights=uri)).model_id
    assert describe_detector(DetectorSettings(weights=uri, keep_logits=False)).model_id != reference
    for changed in ({"eta0": 0.1}, {"min_size": 64}, {"max_size": 200}, {"nms_iou": 0.4}):
        settings = DetectorSettings.model_validate({"weights": uri, **changed})
        assert describe_detector(settings).model_id != reference
    weights = dict(random_model("small_fasterrcnn").state_dict())
    bias = "roi_heads.box_predictor.cls_score.bias"
    weights[bias] = weights[bias] + 0.5
    other = save_random(tmp_path / "b.pt", weights=weights)
    assert describe_detector(DetectorSettings(weights=other)).model_id != reference


def test_uri_of_another_file_system(tmp_path: Path) -> None:
    import fsspec

    content = Path(save_random(tmp_path / "a.pt")).read_bytes()
    with fsspec.open("memory://models/a.pt", "wb") as stream:
        stream.write(content)
    remote = describe_detector(DetectorSettings(weights="memory://models/a.pt"))
    assert remote.model_id == describe_detector(DetectorSettings(weights=str(tmp_path / "a.pt"))).model_id
    as_uri = (tmp_path / "a.pt").as_uri()
    assert describe_detector(DetectorSettings(weights=as_uri)).model_id == remote.model_id
    save_checkpoint(load_checkpoint("memory://models/a.pt"), "memory://models/b.pt")
    assert describe_detector(DetectorSettings(weights="memory://models/b.pt")).model_id == remote.model_id


def assert_refused(match: str, **settings: Any) -> None:
    with pytest.raises(QuarryError, match=match) as caught:
        load_detector(DetectorSettings(**settings), "cpu")
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    assert_refused("cannot read detector weights .*none.pt: No such file", weights=str(tmp_path / "none.pt"))
    assert_refused("cannot read detector weights", weights="memory://models/none.pt")
    assert_refused("cannot open nosuch://", weights="nosuch://x/y.pt")
    (tmp_path / "noise.pt").write_bytes(np.random.default_rng(5).bytes(5000))
    assert_refused("not a checkpoint", weights=str(tmp_path / "noise.pt"))
    (tmp_path / "empty.pt").write_bytes(b"")
    assert_refused("not a checkpoint", weights=str(tmp_path / "empty.pt"))
    whole = Path(save_random(tmp_path / "a.pt")).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert_refused("not a checkpoint", weights=str(tmp_path / "cut.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    assert_refused("expected a Quarry checkpoint or a state dict", weights=str(tmp_path / "list.pt"))


class _Touch:
    """Runs code when unpickled without protection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Touch(trace)))
    buffer = io.BytesIO()
    torch.save({"format": "quarry-detector", "weights": _Touch(trace)}, buffer)
    (tmp_path / "zip.pt").write_bytes(buffer.getvalue())
    for name in ("plain.pt", "zip.pt"):
        assert_refused("not a checkpoint of tensors and plain values", weights=str(tmp_path / name))
    assert not trace.exists()
    # The same bytes do run it when loaded without protection: the test would notice.
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert trace.exists()


def test_what_the_settings_name_must_agree(tmp_path: Path) -> None:
    uri = save_random(tmp_path / "a.pt")
    assert_refused(
        "detector.classes expected car, truck; the weights have pedestrian, car, sign",
        weights=uri,
        classes=("car", "truck"),
    )
    assert_refused(
        "detector.architecture expected small_retinanet, the checkpoint is small_fasterrcnn",
        weights=uri,
        architecture="small_retinanet",
    )
    assert_refused(
        "unknown detector architecture 'small_fastercnn'; did you mean 'small_fasterrcnn'",
        weights=uri,
        architecture="small_fastercnn",
    )
    wrong = save_random(tmp_path / "wrong.pt", architecture="small_retinanet", head="sigmoid")
    assert_refused("weights do not fit the architecture: .* names missing, .* unknown", weights=wrong)
    fewer = save_random(tmp_path / "fewer.pt", classes=CLASSES[:2])
    assert_refused("weights do not fit the architecture: size mismatch", weights=fewer)
    content = torch.load(uri, weights_only=True)
    torch.save({**content, "format_version": 2}, tmp_path / "newer.pt")
    assert_refused("checkpoint format 2, expected 1", weights=str(tmp_path / "newer.pt"))
    torch.save({**content, "min_size": "big"}, tmp_path / "typed.pt")
    assert_refused("min_size expected int, got str", weights=str(tmp_path / "typed.pt"))
    with pytest.raises(QuarryError, match="no CUDA device"):
        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA")
        load_detector(DetectorSettings(weights=uri), "cuda")


@pytest.mark.parametrize("architecture", ["ssdlite320_mobilenet_v3_large", "small_retinanet"])
def test_bare_state_dicts(tmp_path: Path, architecture: str) -> None:
    path = str(tmp_path / "model.pth")
    torch.save(random_model(architecture).state_dict(), path)
    assert_refused("bare state dict: set detector.architecture", weights=path)
    unnamed = load_detector(DetectorSettings(weights=path, architecture=architecture), "cpu")
    assert unnamed.classes == ("class_1", "class_2", "class_3")
    named = load_detector(DetectorSettings(weights=path, architecture=architecture, classes=CLASSES), "cpu")
    assert named.classes == CLASSES
    assert_refused(
        r"expected 3 names \(the head has 4 columns",
        weights=path,
        architecture=architecture,
        classes=("car",),
    )
    assert_refused("weights do not fit", weights=path, architecture="fasterrcnn_resnet50_fpn")


def test_torchvision_files_bring_their_classes(tmp_path: Path) -> None:
    architecture = "fasterrcnn_mobilenet_v3_large_320_fpn"
    path = tmp_path / "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"
    torch.save(build_model(architecture, n_classes=90).state_dict(), path)
    card = describe_detector(DetectorSettings(weights=str(path), architecture=architecture))
    assert len(card.classes) == 90
    assert (card.classes[0], card.classes[2], card.classes[-1]) == ("person", "car", "toothbrush")
    assert (card.min_size, card.max_size) == (320, 640)


def weights_without_memory(architecture: str, n_classes: int) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(build_model(architecture, n_classes=n_classes).state_dict())


@pytest.mark.parametrize("architecture", known_architectures())
def test_classes_are_counted_in_every_architecture(architecture: str) -> None:
    weights = weights_without_memory(architecture, 7)
    assert sum(value.numel() for value in weights.values()) > 5e5
    assert _class_count(weights, architecture, "a.pth") == 7


def test_heads_that_are_of_no_number_of_classes() -> None:
    name = "ssdlite320_mobilenet_v3_large"
    weights = weights_without_memory(name, 7)
    bias = "head.classification_head.module_list.0.1.bias"
    with pytest.raises(QuarryError, match=rf"a.pth: weights do not fit {name}: {bias} is missing"):
        _class_count({k: v for k, v in weights.items() if k != bias}, name, "a.pth")
    with pytest.raises(QuarryError, match="has 49 values, expected 6 for each class and 6 beside"):
        _class_count({**weights, bias: torch.zeros(49)}, name, "a.pth")
    with pytest.raises(QuarryError, match="is of 6 classes, .* of 7"):
        _class_count({**weights, bias: torch.zeros(42)}, name, "a.pth")
    with pytest.raises(QuarryError, match="has 6 values"):
        _class_count({**weights, bias: torch.zeros(6)}, name, "a.pth")


def test_zero_epsilon_is_for_the_weights_that_torchvision_treats_so() -> None:
    for name in torchvision_architectures():
        source = inspect.getsource(inspect.unwrap(torchvision.models.get_model_builder(name)))
        assert ("overwrite_eps(model, 0.0)" in source) == ((name, "COCO_V1") in ZERO_EPSILON_WEIGHTS)


def test_weights_by_name_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's own files leave out what frozen batch norm does not have."""
    architecture = "ssdlite320_mobilenet_v3_large"
    official = torchvision.models.get_model_weights(architecture)["COCO_V1"]
    weights = dict(build_model(architecture, n_classes=90).state_dict())
    weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    path = tmp_path / PurePosixPath(official.url).name
    torch.save(weights, path)
    monkeypatch.setattr(type(official), "get_state_dict", lambda self, **options: weights)
    named = load_detector(DetectorSettings(weights="COCO_V1", architecture=architecture), "cpu")
    from_file = load_detector(DetectorSettings(weights=str(path), architecture=architecture), "cpu")
    assert named.model_id == from_file.model_id
    assert named.classes == from_file.classes and named.classes[2] == "car"
    assert_refused(
        "resizes every image to 320x320 px: min_size expected 320 or none, got 400",
        weights="COCO_V1",
        architecture=architecture,
        min_size=400,
    )


def test_masks_and_keypoints_are_dropped() -> None:
    from tests.detectors.tiny_detectors import random_detector

    for found in random_detector("maskrcnn_resnet50_fpn").predict(random_images([(96, 128)])):
        assert found.boxes_xyxy.shape == (len(found), 4)
