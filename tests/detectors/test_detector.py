"""Prediction against torchvision's own models, logits, batches, boxes and identity."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from scipy.optimize import linear_sum_assignment

from conf.errors import QuarryError
from detectors.architectures import build_model, known_architectures, torchvision_architectures
from detectors.batch_detections import best_of_each_group
from detectors.detections import Detections
from detectors.fcos import score_logits
from detectors.outputs import Outputs
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector
from tests.detectors.tiny_detectors import CLASSES, random_detector, random_images, random_model

SMALL = ("small_fasterrcnn", "small_retinanet")
LIGHT = (*SMALL, "pixel_network", "ssdlite320_mobilenet_v3_large")
ONE_OF_EACH_FAMILY = (*LIGHT, "fcos_resnet50_fpn")
SIZES_HW = [(120, 200), (97, 301), (120, 200)]
KEEP = KeepThresholds(eta0=0.1, detections_per_image=60, nms_iou=0.4)
EVERYTHING = Outputs(logits=True, features=True, image_feature=True, maps=True)


@cache
def shared_detector(architecture: str) -> TorchvisionDetector:
    return random_detector(architecture, keep=KEEP, outputs=EVERYTHING)


@cache
def found_alone(architecture: str) -> list[Detections]:
    """Detections of the first two images, each in a batch of its own."""
    detector = shared_detector(architecture)
    return [detector.predict([image])[0] for image in random_images(SIZES_HW)[:2]]


def torchvision_detections(model: Any, image: np.ndarray[Any, Any], keep: KeepThresholds) -> Detections:
    """What the model itself finds, without masks and keypoints.

    Its threshold is > where ours is >=, and it keeps boxes without area where we do not.
    """
    owner = getattr(model, "roi_heads", model)
    owner.nms_thresh, owner.score_thresh = keep.nms_iou, float(np.nextafter(keep.eta0, 0))
    owner.detections_per_img = 10_000
    if hasattr(model, "roi_heads"):
        owner.mask_roi_pool = owner.keypoint_roi_pool = None
    with torch.inference_mode():
        found = model([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
    boxes = found["boxes"].numpy()
    solid = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))[: keep.detections_per_image]
    return Detections(boxes[solid], found["scores"].numpy()[solid], found["labels"].numpy()[solid])


def assert_same(found: Detections, expected: Detections, tolerance_px: float = 1e-3) -> None:
    """The same boxes, labels and scores in any order of equal scores."""
    assert len(found) == len(expected)
    box_px = np.abs(found.boxes_xyxy[:, None] - expected.boxes_xyxy).max(axis=2)
    score = np.abs(found.scores[:, None] - expected.scores)
    other_class = found.labels[:, None] != expected.labels
    rows, columns = linear_sum_assignment(box_px + 1000 * score + 1e6 * other_class)
    assert not other_class[rows, columns].any()
    assert score[rows, columns].max(initial=0) < 1e-4
    assert box_px[rows, columns].max(initial=0) < tolerance_px


def test_every_torchvision_detector_is_known() -> None:
    names = torchvision.models.list_models(module=torchvision.models.detection)
    assert len(names) >= 12
    assert set(names) < set(known_architectures())


@pytest.mark.parametrize("architecture", [*SMALL, *torchvision_architectures()])
def test_equals_torchvision(architecture: str) -> None:
    detector = shared_detector(architecture)
    for image, found in zip(random_images(SIZES_HW), found_alone(architecture), strict=False):
        assert len(found) > 10 and len(set(found.labels.tolist())) == len(CLASSES)
        assert_same(found, torchvision_detections(detector.model, image, KEEP))


@pytest.mark.parametrize("architecture", known_architectures())
def test_logits_give_the_score(architecture: str) -> None:
    for found in found_alone(architecture):
        assert found.logits is not None
        logits, rows = torch.from_numpy(found.logits), np.arange(len(found))
        if shared_detector(architecture).head == "softmax":
            assert logits.shape == (len(found), len(CLASSES) + 1)
            scores = torch.softmax(logits, -1).numpy()[:, 1:]
        else:
            assert logits.shape == (len(found), len(CLASSES))
            scores = torch.sigmoid(logits).numpy()
        np.testing.assert_allclose(scores[rows, found.labels - 1], found.scores, atol=1e-6)


@pytest.mark.parametrize("architecture", known_architectures())
def test_batch_does_not_change_results(architecture: str) -> None:
    first, _, same_size = random_images(SIZES_HW)
    alone = found_alone(architecture)[0]
    batched = shared_detector(architecture).predict([same_size, first])[1]
    assert_same(alone, batched, tolerance_px=0.02)
    assert alone.image_feature is not None
    tolerance = 1e-4 * np.abs(alone.image_feature).max()
    np.testing.assert_allclose(alone.image_feature, batched.image_feature, rtol=0, atol=tolerance)
    for one, other in zip(alone.maps or (), batched.maps or (), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("architecture", LIGHT)
def test_order_and_sizes_do_not_change_results(architecture: str) -> None:
    images = random_images(SIZES_HW)
    together = shared_detector(architecture).predict(images)
    for alone, batched in zip(found_alone(architecture), together, strict=False):
        assert_same(alone, batched, tolerance_px=0.02)
    for one, other in zip(shared_detector(architecture).predict(images[::-1]), together[::-1], strict=True):
        assert_same(one, other, tolerance_px=0.02)


@pytest.mark.parametrize("architecture", ONE_OF_EACH_FAMILY)
def test_boxes_are_inside_the_image_and_best_first(architecture: str) -> None:
    for image, found in zip(random_images(SIZES_HW), found_alone(architecture), strict=False):
        height, width = image.shape[:2]
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= [width, height, width, height]).all()
        assert (np.diff(found.scores) <= 0).all()
        assert (found.scores >= KEEP.eta0).all()
        assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32


@pytest.mark.parametrize("architecture", LIGHT)
def test_a_score_at_the_threshold_is_kept(architecture: str) -> None:
    lowest = found_alone(architecture)[0].scores.min()
    model = shared_detector(architecture).model
    image = random_images(SIZES_HW)[:1]
    counts = []
    for eta0 in (lowest, np.nextafter(lowest, np.float32(1))):
        keep = KeepThresholds(eta0=float(eta0), detections_per_image=60, nms_iou=0.4)
        detector = TorchvisionDetector(model, architecture=architecture, classes=CLASSES, keep=keep)
        counts.append((detector.predict(image)[0].scores == lowest).sum())
    assert counts == [1, 0]


def test_features_of_proposals_give_their_logits() -> None:
    found = found_alone("small_fasterrcnn")[0]
    predictor = shared_detector("small_fasterrcnn").model.roi_heads.box_predictor
    assert found.features is not None and found.features.shape == (len(found), 128)
    with torch.inference_mode():
        logits = predictor.cls_score(torch.from_numpy(found.features)).numpy()
    np.testing.assert_allclose(logits, found.logits, atol=1e-4)


@pytest.mark.parametrize("architecture", ["small_retinanet", "fcos_resnet50_fpn"])
def test_features_of_anchors_are_those_of_their_cell(architecture: str) -> None:
    """The head makes the kept logits of the very cell whose vector the features are."""
    model = shared_detector(architecture).model
    image, found = random_images(SIZES_HW)[0], found_alone(architecture)[0]
    with torch.inference_mode():
        images, _ = model.transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        maps = list(model.backbone(images.tensors).values())
        raw = model.head(maps)
    cells = torch.cat([level[0].flatten(1).T for level in maps]).numpy()
    logits = raw["cls_logits"][0, :, 1:]
    if "bbox_ctrness" in raw:
        logits = score_logits(logits, raw["bbox_ctrness"][0])
    by_cell = logits.reshape(len(cells), -1, len(CLASSES)).numpy()
    assert found.features is not None and found.logits is not None
    for vector, row in zip(found.features, found.logits, strict=True):
        distance = np.abs(cells - vector).max(axis=1)
        there = distance < 1e-4
        assert there.any()
        assert np.abs(by_cell[there] - row).max(axis=-1).min() < 1e-3


def test_ssd_has_no_features_of_boxes() -> None:
    found = found_alone("ssdlite320_mobilenet_v3_large")[0]
    assert found.features is None and found.image_feature is not None


@pytest.mark.parametrize(
    ("architecture", "deepest"),
    [("small_retinanet", "3"), ("fcos_resnet50_fpn", "2"), ("fasterrcnn_mobilenet_v3_large_fpn", "1"),
     ("ssdlite320_mobilenet_v3_large", "5")],
)  # fmt: skip
def test_image_feature_is_the_mean_of_the_deepest_map(architecture: str, deepest: str) -> None:
    model = shared_detector(architecture).model
    image = random_images(SIZES_HW)[0]
    with torch.inference_mode():
        images, _ = model.transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        expected = model.backbone(images.tensors)[deepest].mean(dim=(0, 2, 3))
    found = found_alone(architecture)[0].image_feature
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_maps_leave_padding_out() -> None:
    """97 x 301 px is fed as 51 x 160 in 64 x 160: strides 4, 8, 16, 32, 64 have ceil(51 / stride) rows."""
    maps = found_alone("small_retinanet")[1].maps
    assert maps is not None
    assert [level.shape for level in maps] == [(13, 40), (7, 20), (4, 10), (2, 5), (1, 3)]


@pytest.mark.parametrize("architecture", ["small_retinanet", "fcos_resnet50_fpn"])
def test_maps_of_sigmoid_heads_hold_the_scores(architecture: str) -> None:
    """Nothing suppresses the best box of an image, and its score is the largest of all cells."""
    for found in found_alone(architecture):
        assert found.maps is not None
        assert max(level.max() for level in found.maps) == pytest.approx(found.scores[0], abs=1e-5)
        assert min(level.min() for level in found.maps) < 0.5


def test_maps_of_softmax_heads() -> None:
    """SSD: the best cell is no less than any kept box. R-CNN: the best anchor of the proposal network."""
    for found in found_alone("ssdlite320_mobilenet_v3_large"):
        assert found.logits is not None and found.maps is not None
        foreground = 1 - torch.softmax(torch.from_numpy(found.logits), -1)[:, 0].numpy()
        finest = np.concatenate([level.ravel() for level in found.maps])
        assert np.abs(finest[:, None] - foreground).min(axis=0).max() < 0.2
        assert finest.max() >= foreground.max() - 1e-6
    detector = shared_detector("small_fasterrcnn")
    seen: list[Any] = []
    hook = detector.model.rpn.head.register_forward_hook(lambda *call: seen.extend(call[2][0]))
    found = detector.predict(random_images(SIZES_HW)[:1])[0]
    hook.remove()
    assert found.maps is not None and len(seen) == len(found.maps) == 5
    for level, logits in zip(found.maps, seen, strict=True):
        np.testing.assert_allclose(level, 1 / (1 + np.exp(-logits[0].numpy().max(axis=0))), atol=1e-6)


@pytest.mark.parametrize("architecture", LIGHT)
def test_lower_precision(architecture: str) -> None:
    """The network runs in bfloat16, what comes after it in float32; scores stay close."""
    full = shared_detector(architecture)
    low = TorchvisionDetector(
        full.model, architecture=architecture, classes=CLASSES, keep=KEEP, outputs=EVERYTHING,
        precision="bfloat16",
    )  # fmt: skip
    dtypes: list[Any] = []
    hook = low.model.backbone.register_forward_hook(
        lambda *call: dtypes.extend(level.dtype for level in call[2].values())
    )
    found = low.predict(random_images(SIZES_HW)[:1])[0]
    hook.remove()
    assert set(dtypes) == {torch.bfloat16}
    assert low.model_id != full.model_id
    assert found.logits is not None and found.maps is not None
    if low.head == "sigmoid":
        scores = torch.sigmoid(torch.from_numpy(found.logits)).numpy()
    else:
        scores = torch.softmax(torch.from_numpy(found.logits), -1).numpy()[:, 1:]
    np.testing.assert_allclose(scores[np.arange(len(found)), found.labels - 1], found.scores, atol=1e-6)
    for level, exact in zip(found.maps, found_alone(architecture)[0].maps or (), strict=True):
        assert np.abs(level - exact).mean() < 0.02


def test_precision_is_checked_and_part_of_the_identity() -> None:
    reference = random_detector("small_retinanet").model_id
    assert random_detector("small_retinanet", precision="float32").model_id == reference
    half = random_detector("small_retinanet", precision="float16")
    assert half.model_id != reference
    assert half.model_id != random_detector("small_retinanet", precision="bfloat16").model_id
    assert len(half.predict(random_images([(120, 200)]))[0]) > 10
    with pytest.raises(QuarryError, match="detector.precision: expected one of float32, .*got 'int8'"):
        random_detector("small_retinanet", precision="int8")


def test_compiled_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's graph capture alone; machine code would need a C++ compiler and a minute."""
    compiled: list[torch.nn.Module] = []

    def capture(module: torch.nn.Module) -> None:
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", capture)
    detector = random_detector("small_retinanet", keep=KEEP, compile=True)
    assert [type(module).__name__ for module in compiled] == ["BackboneWithFPN", "RetinaNetHead"]
    assert detector.model_id == random_detector("small_retinanet", keep=KEEP).model_id
    image = random_images(SIZES_HW)[0]
    assert_same(detector.predict([image])[0], found_alone("small_retinanet")[0])


def test_the_clock_knows_the_stages() -> None:
    detector = shared_detector("small_retinanet")
    detector.clock.take()
    detector.predict(random_images(SIZES_HW))
    seconds = detector.clock.take()
    assert set(seconds) == {"transfer", "forward", "post_process"}
    assert all(value > 0 for value in seconds.values())


def test_best_of_each_group_against_a_loop() -> None:
    random = np.random.default_rng(3)
    scores, group = random.integers(0, 40, 300) / 40, random.integers(0, 4, 300)
    expected = np.zeros(300, bool)
    for label in range(4):
        members = np.flatnonzero(group == label)
        expected[members[np.argsort(-scores[members], kind="stable")][:25]] = True
    found = best_of_each_group(torch.from_numpy(scores), torch.from_numpy(group), 25)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_candidates_are_limited_as_in_torchvision() -> None:
    """Per level (RetinaNet) and per class (SSD), with limits that bind."""
    for architecture in ("small_retinanet", "ssdlite320_mobilenet_v3_large"):
        model = random_model(architecture)
        model.topk_candidates = 7
        keep = KeepThresholds(eta0=0.01, detections_per_image=500, nms_iou=0.9)
        detector = TorchvisionDetector(model, architecture=architecture, classes=CLASSES, keep=keep)
        image = random_images(SIZES_HW)[0]
        found = detector.predict([image])[0]
        assert 10 < len(found) <= 35
        assert_same(found, torchvision_detections(model, image, keep))


def test_effective_logits_of_fcos() -> None:
    """sqrt(p p) = p: equal logits stay. Else log(p / (1 - p)) in float64, and finite at the ends."""
    equal = torch.tensor([[-3.0], [0.0], [4.0]])
    torch.testing.assert_close(score_logits(equal, equal), equal, atol=1e-5, rtol=0)
    random = np.random.default_rng(5)
    a, b = random.normal(0, 4, (50, 3)), random.normal(0, 4, (50, 1))
    p = np.sqrt(1 / (1 + np.exp(-a)) / (1 + np.exp(-b)))
    found = score_logits(torch.tensor(a).float(), torch.tensor(b).float())
    np.testing.assert_allclose(found.numpy(), np.log(p / (1 - p)), atol=2e-4, rtol=1e-5)
    ends = torch.tensor([[200.0, -200.0, 30.0]])
    assert torch.isfinite(score_logits(ends, torch.tensor([[200.0]]))).all()
    assert torch.sigmoid(score_logits(ends, torch.tensor([[200.0]])))[0, 0] == 1


def test_ssd_takes_one_size_of_images() -> None:
    name = "ssdlite320_mobilenet_v3_large"
    card = shared_detector(name).card
    assert (card.min_size, card.max_size, card.head) == (320, 320, "softmax")
    assert isinstance(build_model(name, n_classes=2, min_size=320, max_size=320), torch.nn.Module)
    with pytest.raises(QuarryError, match="resizes every image to 320x320 px: min_size expected 320 or none"):
        build_model(name, n_classes=2, min_size=640)
    narrow = shared_detector(name).predict([np.zeros((1, 5000, 3), np.uint8)])[0]
    assert (narrow.boxes_xyxy[:, 2] <= 5000).all()


def test_features_and_logits_are_optional() -> None:
    image = random_images([(120, 200)])
    plain = random_detector("small_fasterrcnn", outputs=Outputs(logits=False)).predict(image)[0]
    assert plain.logits is None and plain.features is None
    kept = Outputs(features=True)
    with_features = random_detector("small_fasterrcnn", outputs=kept).predict(image)[0]
    assert with_features.features is not None
    assert with_features.features.shape == (len(with_features), 128)
    assert with_features.image_feature is None and with_features.maps is None


@pytest.mark.parametrize("architecture", LIGHT)
def test_no_images_read_only_images_and_no_detections(architecture: str) -> None:
    detector = TorchvisionDetector(
        shared_detector(architecture).model, architecture=architecture, classes=CLASSES, outputs=EVERYTHING,
        keep=KeepThresholds(eta0=1.0, detections_per_image=5, nms_iou=0.5),
    )  # fmt: skip
    assert detector.predict([]) == []
    image = random_images([(120, 200)])[0]
    image.setflags(write=False)
    found = detector.predict([image])[0]
    assert len(found) == 0
    assert found.logits is not None
    assert found.logits.shape == (0, len(CLASSES) + (detector.head == "softmax"))


def test_refuses_what_is_no_rgb_image() -> None:
    detector = random_detector("small_fasterrcnn")
    with pytest.raises(QuarryError, match=r"image 1 of the batch: expected \(h, w, 3\) uint8"):
        detector.predict([*random_images([(50, 50)]), np.zeros((50, 50), np.uint8)])
    with pytest.raises(QuarryError, match="no pixel left"):
        detector.predict([np.zeros((1, 5000, 3), np.uint8)])


def test_identity() -> None:
    reference = random_detector("small_fasterrcnn", name="a").model_id
    assert len(reference) == 16
    assert random_detector("small_fasterrcnn", name="b", uri="elsewhere").model_id == reference
    for keep in (
        KeepThresholds(eta0=0.06, detections_per_image=100, nms_iou=0.5),
        KeepThresholds(eta0=0.05, detections_per_image=99, nms_iou=0.5),
        KeepThresholds(eta0=0.05, detections_per_image=100, nms_iou=0.6),
    ):
        assert random_detector("small_fasterrcnn", keep=keep).model_id != reference
    assert random_detector("small_fasterrcnn", classes=("a", "b", "c")).model_id != reference


def test_weights_must_be_finite() -> None:
    model = random_model("small_fasterrcnn")
    model.roi_heads.box_predictor.cls_score.bias.data[0] = float("nan")
    keep = KeepThresholds(eta0=0.05, detections_per_image=5, nms_iou=0.5)
    with pytest.raises(QuarryError, match="cls_score.bias is not finite"):
        TorchvisionDetector(model, architecture="small_fasterrcnn", classes=CLASSES, keep=keep)


def test_detections_refuse_misfits() -> None:
    boxes, scores = np.array([[0, 0, 4, 4]], np.float32), np.array([0.5], np.float32)
    labels = np.array([1], np.int64)
    Detections(boxes, scores, labels)
    half = np.full((2, 3), 0.5, np.float32)
    Detections(boxes, scores, labels, image_feature=half[0], maps=(half, half))
    for extra in ({"image_feature": half}, {"image_feature": half[0] * np.nan}, {"maps": (half * 3,)},
                  {"maps": (half[0],)}, {"maps": (half, half.astype(np.float64))}):  # fmt: skip
        with pytest.raises(QuarryError, match="image_feature|maps"):
            Detections(boxes, scores, labels, **extra)
    for bad in (
        (boxes[:, ::-1].copy(), scores, labels),
        (boxes, scores * 3, labels),
        (boxes, scores, labels - 1),
        (boxes, scores[:0], labels),
        (boxes.astype(np.float64), scores, labels),
        (boxes * np.nan, scores, labels),
    ):
        with pytest.raises(QuarryError):
            Detections(*bad)


def test_imports_neither_spark_nor_pandas() -> None:
    code = (
        "import sys, detectors.load, detectors.training\n"
        "print([m for m in ('pyspark', 'pandas', 'pyarrow', 'udfs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("architecture", [*LIGHT, "fcos_resnet50_fpn"])
def test_a_network_that_overflows_is_an_error_and_not_an_empty_image(architecture: str) -> None:
    detector = random_detector(architecture)
    weight = next(detector.model.backbone.parameters())
    torch.nn.init.constant_(weight, 3e38)
    with pytest.raises(QuarryError, match=r"image 0 .* not finite"):
        detector.predict(random_images([(120, 200)]))


def test_weights_of_another_epsilon_are_another_model() -> None:
    def model_id() -> str:
        return TorchvisionDetector(
            model, architecture="small_fasterrcnn", classes=CLASSES, keep=KEEP
        ).model_id

    model = random_model("small_fasterrcnn")
    plain = model_id()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    assert model_id() != plain
