"""Pixel scores through detectors: on the device, per image, part of the identity only where asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList

from conf.errors import QuarryError
from conf.settings import PIXEL_SCORES, DetectorSettings
from detectors.load import describe_detector, load_detector
from detectors.outputs import Outputs, PixelScoring
from detectors.pixel_divergence import LevelMap, mutual_information, pixel_divergence, region_maxima
from detectors.pixel_scoring import DropoutPasses
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector
from tests.detectors.tiny_detectors import CLASSES, random_images, random_model

WITHOUT_DROPOUT = tuple(name for name in PIXEL_SCORES if "mutual" not in name)
KEEP = KeepThresholds(eta0=0.05, detections_per_image=50, nms_iou=0.5)
FAMILIES = ("small_fasterrcnn", "small_retinanet", "fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large")


def detector(
    architecture: str, names: tuple[str, ...] = WITHOUT_DROPOUT, **scoring: Any
) -> TorchvisionDetector:
    return wrapped(random_model(architecture), architecture, PixelScoring(names=names, **scoring))


def wrapped(model: Any, architecture: str, scoring: PixelScoring | None) -> TorchvisionDetector:
    return TorchvisionDetector(
        model,
        architecture=architecture,
        classes=CLASSES,
        keep=KEEP,
        outputs=Outputs(maps=True, pixel_scores=scoring),
    )


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family_scores_its_images_as_it_does_alone(architecture: str) -> None:
    model = detector(architecture)
    images = random_images([(120, 200), (100, 150), (120, 200)], seed=3)
    together = model.predict(images)
    assert "pixel_scores" in model.clock.take()
    for image, found in zip(images, together, strict=True):
        assert found.pixel_scores is not None and tuple(found.pixel_scores) == WITHOUT_DROPOUT
        (alone,) = model.predict([image])
        assert alone.pixel_scores is not None
        for name, score in found.pixel_scores.items():
            assert 0 < score == pytest.approx(alone.pixel_scores[name], rel=1e-3), name
        assert found.pixel_scores["pixel_divergence"] > found.pixel_scores["pixel_divergence_mean"]


def test_scores_are_those_of_the_maps_handed_out() -> None:
    # 96 px of height become 96 of a 32-multiple: no padding, so the maps are all there is.
    model = detector("small_retinanet", ("pixel_divergence",), radius_px=4, region_px=16)
    (image,) = random_images([(96, 160)], seed=4)
    (found,) = model.predict([image])
    assert found.maps is not None and found.pixel_scores is not None
    scores = pixel_divergence([LevelMap(torch.from_numpy(level)) for level in found.maps], (96, 160), 4)
    assert found.pixel_scores["pixel_divergence"] == pytest.approx(
        float(region_maxima(scores, 16).mean()), rel=1e-5
    )
    np.testing.assert_allclose(model.pixel_score_map(image, "pixel_divergence"), scores.numpy(), atol=1e-6)
    with pytest.raises(QuarryError, match="no pixel scores 'pixel_entropy'"):
        model.pixel_score_map(image, "pixel_entropy")


def test_padding_does_not_stretch_the_maps() -> None:
    """A picture padded by the model, and the same picture padded by hand with what becomes 0 in the model."""
    model = detector("small_retinanet", ("pixel_divergence",), radius_px=4)
    (image,) = random_images([(96, 140)], seed=5)
    padding = np.round(255 * np.array(model.model.transform.image_mean)).astype(np.uint8)
    by_hand = np.concatenate([image, np.broadcast_to(padding, (96, 20, 3))], axis=1)
    found, wanted = (model.pixel_score_map(pixels, "pixel_divergence") for pixels in (image, by_hand))
    away = slice(0, 110)  # the last windows see where the picture ends
    assert np.corrcoef(found[:, away].ravel(), wanted[:, away].ravel())[0, 1] > 0.99
    np.testing.assert_allclose(found[:, away], wanted[:, away], atol=0.05 * wanted.max())


def _input(model: TorchvisionDetector, image: Any) -> Any:
    from detectors.input_batches import input_batches

    return input_batches([image], model.model.transform, model.device)[0].images


def test_identity_changes_only_where_pixel_scores_are_asked_for() -> None:
    plain = describe_detector(DetectorSettings())
    unused = describe_detector(DetectorSettings(pixel_radius=5, pixel_region=8, dropout_passes=3))
    assert plain.model_id == unused.model_id == "0d18d9c08dd70b5e"
    asked = [
        DetectorSettings(pixel_scores=("pixel_divergence", "pixel_entropy")),
        DetectorSettings(pixel_scores=("pixel_divergence",)),
        DetectorSettings(pixel_scores=("pixel_divergence",), pixel_radius=5),
        DetectorSettings(pixel_scores=("pixel_divergence",), pixel_region=8),
    ]
    ids = {describe_detector(settings).model_id for settings in asked}
    assert len(ids | {plain.model_id}) == 5
    ratio = DetectorSettings(pixel_scores=("pixel_divergence",), dropout_ratio=0.5)  # of no pass
    assert describe_detector(ratio).model_id == describe_detector(asked[1]).model_id
    other_order = DetectorSettings(pixel_scores=("pixel_entropy", "pixel_divergence"), dropout_passes=3)
    assert describe_detector(other_order).model_id == describe_detector(asked[0]).model_id


@pytest.mark.parametrize(
    "kind", [{"plugin": "some.module:factory"}, {"weights": "model.onnx", "onnx": {"input": "images"}}]
)
def test_detectors_without_maps_are_refused(kind: dict[str, Any]) -> None:
    settings = DetectorSettings.model_construct(
        **{**DetectorSettings(pixel_scores=("pixel_divergence",)).__dict__, **kind}
    )
    with pytest.raises(QuarryError, match="dense foreground maps.*small_retinanet.*there are none"):
        load_detector(settings, "cpu")


def test_mutual_information_needs_dropout() -> None:
    settings = DetectorSettings(pixel_scores=("pixel_mutual_information",))
    with pytest.raises(QuarryError, match="FasterRCNN has no dropout layer"):
        load_detector(settings, "cpu")


def test_mutual_information_of_a_network_with_dropout() -> None:
    model = random_model("small_retinanet")
    model.head.classification_head.conv.append(nn.Dropout(0.3))
    model.head.classification_head.conv.insert(0, nn.Dropout2d(0.0))
    names = ("pixel_divergence", "pixel_mutual_information", "pixel_mutual_information_mean")
    model = wrapped(model, "small_retinanet", PixelScoring(names=names, passes=7))
    images = random_images([(96, 160), (96, 160)], seed=6)
    state = torch.random.get_rng_state()
    first, second = (found.pixel_scores for found in model.predict(images))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first is not None and second is not None and first != second
    assert all(score > 0 for score in first.values())
    (again,) = model.predict(images[1:])
    assert again.pixel_scores == pytest.approx(second, rel=1e-4)
    assert not any(layer.training for layer in model.model.modules())
    with torch.no_grad():
        levels = [LevelMap(m) for m in model._passes.maps(_input(model, images[0]), 0)]
    assert {len(level.probabilities) for level in levels} == {7}
    mean = float(mutual_information(levels, (96, 160)).mean())
    assert first["pixel_mutual_information_mean"] == pytest.approx(mean, rel=1e-4)


def test_passes_drop_the_ratio_that_is_asked_for() -> None:
    layer = nn.Dropout(0.1)
    ones, (image,) = torch.ones(1, 10_000), random_images([(8, 8)], seed=6)

    def forward(_: Any, images: Any) -> Any:
        return SimpleNamespace(foreground_maps=lambda: [layer(ones.expand(len(images.tensors), -1))])

    batch = ImageList(torch.zeros(1, 3, 8, 8), [image.shape[:2]])
    for ratio, wanted in ((None, 0.1), (0.5, 0.5)):
        scoring = PixelScoring(names=("pixel_mutual_information",), passes=7, dropout_ratio=ratio)
        (maps,) = DropoutPasses(layer.eval(), forward, scoring).maps(batch, 0)
        assert float((maps == 0).double().mean()) == pytest.approx(wanted, abs=0.01)
        assert (layer.p, layer.training) == (0.1, False)
