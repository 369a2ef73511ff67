"""The pixel network: shapes, fixed boxes, samples and loss, training, dropout, detections from maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from conf.errors import QuarryError
from conf.settings import DetectorSettings, TrainSettings
from detectors.architectures import build_model
from detectors.checkpoint import Checkpoint, save_checkpoint
from detectors.load import load_detector
from detectors.outputs import Outputs
from detectors.pixel_network import Downsampling, FireResidual, PixelNetwork, dropout_enabled
from detectors.pixel_network_boxes import PAPER_SIZES_HW, centred_iou, fitted_box_sizes
from detectors.pixel_network_loss import hard_negatives, pixel_samples, sampled_logistic_loss
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector
from detectors.training import train_detector
from tests.detectors.tiny_detectors import CLASSES, TINY_SIZE_PX, random_images, random_model

KEEP = KeepThresholds(eta0=0.05, detections_per_image=60, nms_iou=0.5)
EVERYTHING = Outputs(features=True, image_feature=True, maps=True)


def detector_of(model: Any, **changes: Any) -> TorchvisionDetector:
    options = {"architecture": "pixel_network", "classes": CLASSES, "keep": KEEP, "outputs": EVERYTHING}
    return TorchvisionDetector(model, **{**options, **changes})


@pytest.fixture
def model() -> Any:
    return random_model("pixel_network")


def one_block(sizes_hw: list[list[float]]) -> torch.Tensor:
    """(1, K, 2) of one size a class."""
    return torch.tensor([sizes_hw])


# --- the network -----------------------------------------------------------------------------------------


def test_levels_and_shared_logits_layer(model: Any) -> None:
    images = torch.rand(2, 3, 64, 128)
    pyramid = model.backbone(images)
    assert list(pyramid) == ["0", "1", "2", "3", "4"]
    assert [tuple(level.shape[2:]) for level in pyramid.values()] == [
        (32, 64), (16, 32), (8, 16), (4, 8), (2, 4)
    ]  # fmt: skip
    features = model.head.features(list(pyramid.values()))
    assert {level.shape[1] for level in features} == {128}
    assert [tuple(level.shape[:2]) for level in model.head(list(pyramid.values()))] == [(2, 3)] * 5
    before = model.head(list(pyramid.values()))
    with torch.no_grad():
        model.head.logits.bias += 1
    after = model.head(list(pyramid.values()))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one + 1)
    assert sum(key.startswith("head.logits.") for key in model.state_dict()) == 2


def test_downsampling_is_convolution_beside_pooling() -> None:
    down = Downsampling(3, 8).eval()
    images = torch.rand(1, 3, 6, 10)
    joined = torch.cat([down.convolution(images), torch.max_pool2d(images, 2)], dim=1)
    assert joined.shape == (1, 8, 3, 5)
    torch.testing.assert_close(down(images), down.activation(joined))
    assert down(images).shape == joined.shape


def test_a_fire_module_bypasses() -> None:
    """With nothing expanded, what comes in goes out."""
    fire = FireResidual(8).eval()
    torch.nn.init.zeros_(fire.expand_1x1.weight)
    torch.nn.init.zeros_(fire.expand_3x3.weight)
    maps = torch.rand(1, 8, 5, 7)
    torch.testing.assert_close(fire(maps), maps)
    shapes = {tuple(w.shape) for w in fire.parameters() if w.ndim == 4}
    assert shapes == {(4, 8, 1, 1), (4, 4, 1, 1), (4, 4, 3, 3)}


def test_the_coarsest_block_sees_its_default_box() -> None:
    """The gradient of one cell's logit reaches over all of the largest box of the paper, 270 x 160 px."""
    model: Any = build_model("pixel_network", n_classes=1).eval()
    images = torch.rand(1, 3, 320, 320, requires_grad=True)
    torch.nn.init.normal_(model.head.logits.weight)
    model.head(list(model.backbone(images).values()))[-1][0, 0, 4, 4].backward()
    seen = images.grad[0].abs().sum(dim=0) > 0  # type: ignore[index]
    rows, columns = seen.any(dim=1).nonzero(), seen.any(dim=0).nonzero()
    height, width = PAPER_SIZES_HW[-1]
    center = 4.5 * 32
    assert rows.min() <= center - height / 2 and rows.max() >= center + height / 2 - 1
    assert columns.min() <= center - width / 2 and columns.max() >= center + width / 2 - 1


def test_widths_and_input_size_are_settable() -> None:
    transform: Any = build_model("pixel_network", n_classes=2).transform
    narrow = PixelNetwork(2, transform=transform, widths=(18, 20, 22, 24, 26), head_filters=16)
    assert sum(p.numel() for p in narrow.parameters()) < 30_000
    assert [level.shape[1] for level in narrow.eval().backbone(torch.rand(1, 3, 64, 64)).values()] == [
        18, 20, 22, 24, 26
    ]  # fmt: skip
    card = detector_of(build_model("pixel_network", n_classes=3, **TINY_SIZE_PX)).card
    assert (card.min_size, card.max_size, card.head, len(card.classes)) == (96, 160, "sigmoid", 3)


# --- box sizes -------------------------------------------------------------------------------------------


def test_box_sizes_by_hand() -> None:
    """Five groups of squares, and bars 4 x as high as wide: five scales, aspects 1 and 4."""
    sides = np.repeat([8.0, 16.0, 32.0, 64.0, 128.0], 4)
    squares = np.stack([sides, sides], axis=1)
    bars = np.stack([2 * sides, sides / 2], axis=1)
    boxes = np.concatenate([squares, bars]).astype(np.float32)
    sizes = fitted_box_sizes(boxes, np.repeat([1, 2], 20), n_classes=3)
    assert sizes.shape == (5, 3, 2) and sizes.dtype == np.float32
    np.testing.assert_array_equal(sizes[:, 0], [[s, s] for s in (8, 16, 32, 64, 128)])
    np.testing.assert_array_equal(sizes[:, 1], [[2 * s, s / 2] for s in (8, 16, 32, 64, 128)])
    assert (np.diff(sizes[:, 2].prod(axis=1)) > 0).all()  # a class without objects


def test_box_sizes_of_few_objects() -> None:
    """One object: all five sizes are its own, in whole px of at least 2."""
    sizes = fitted_box_sizes(np.array([[30.4, 0.9]], np.float32), np.array([1]), n_classes=1)
    np.testing.assert_array_equal(sizes[:, 0], [[30, 2]] * 5)
    assert np.array_equal(sizes, sizes.astype(np.float16).astype(np.float32))


def test_centred_iou_by_hand_and_against_a_loop() -> None:
    """A 4 x 2 box round (2.5, 1.5) and the object (1, 0.5)-(3, 2.5) share 1.5 x 2 of 8 + 4 - 3 px."""
    found = centred_iou(torch.tensor([1.0, 0.5, 3.0, 2.5]), torch.tensor([[2.0, 4.0]]), (4, 6))
    assert found[0, 1, 2] == pytest.approx(4 / 8)
    assert found[0, 1, 3] == pytest.approx(3 / 9)
    random = np.random.default_rng(4)
    box, sizes = random.uniform([0, 0, 5, 5], [4, 4, 11, 9]), random.uniform(1, 9, (3, 2))
    found = centred_iou(torch.from_numpy(box), torch.from_numpy(sizes), (9, 11))
    for (i, y, x), value in np.ndenumerate(found.numpy()):
        height, width = sizes[i]
        shared_h = min(y + 0.5 + height / 2, box[3]) - max(y + 0.5 - height / 2, box[1])
        shared_w = min(x + 0.5 + width / 2, box[2]) - max(x + 0.5 - width / 2, box[0])
        shared = max(0, shared_h) * max(0, shared_w)
        union = height * width + (box[2] - box[0]) * (box[3] - box[1]) - shared
        assert value == pytest.approx(shared / union)


# --- samples and loss ------------------------------------------------------------------------------------


def test_samples_by_hand() -> None:
    """A 5 x 5 object round pixel (4, 4), a 5 x 5 box: by (1, 0) px from it the IoU is 20 / 30, by
    (1, 1) 16 / 34, by (2, 0) 15 / 35, by (2, 1) 12 / 38: the center alone fits, the twelve pixels within 2 px
    of it are left out, all others of the class are negative."""
    box, label = torch.tensor([[2.0, 2.0, 7.0, 7.0]]), torch.tensor([2])
    positive, owner, usable = pixel_samples(box, label, one_block([[5, 5], [5, 5]]), (9, 9))
    assert positive.tolist() == [81 + 4 * 9 + 4] and owner.tolist() == [0]
    assert usable[0, 0].all()
    away = np.abs(np.indices((9, 9)) - 4).sum(axis=0)
    np.testing.assert_array_equal(usable[0, 1].numpy(), away > 2)


def test_every_object_has_samples_and_large_ones_not_more_than_16() -> None:
    sizes = torch.tensor(PAPER_SIZES_HW)[:, None]
    boxes = torch.tensor([[10.0, 50.0, 300.0, 58.0], [30.0, 20.0, 190.0, 290.0], [5.0, 5.0, 8.0, 8.0]])
    for box in boxes:
        positive, _, usable = pixel_samples(box[None], torch.tensor([1]), sizes, (320, 320))
        assert 1 <= len(positive) <= 16 and len(set(positive.tolist())) == len(positive)
        assert not usable.flatten()[positive].any()
    positive, _, _ = pixel_samples(boxes[1:2], torch.tensor([1]), sizes, (320, 320))
    assert len(positive) == 16
    block, pixel = np.divmod(positive.numpy(), 320 * 320)
    y, x = np.divmod(pixel, 320)
    assert set(block) == {4}, "270 x 160 px fits the last block only"
    assert np.abs(y + 0.5 - 155).max() < 48 and np.abs(x + 0.5 - 110).max() < 29


def test_samples_know_their_object() -> None:
    """Alone, each of two objects far apart has the same number of samples, all nearer to it."""
    sizes = torch.tensor([[[16.0, 16.0]], [[30.0, 30.0]]])
    boxes = torch.tensor([[10.0, 10.0, 26.0, 26.0], [60.0, 60.0, 64.0, 64.0], [40.0, 40.0, 70.0, 70.0]])
    positive, owner, _ = pixel_samples(boxes, torch.tensor([1, 1, 1]), sizes, (90, 90))
    assert len(positive) == len(owner) and set(owner.tolist()) == {0, 1, 2}
    y, x = np.divmod(positive.numpy() % 8100, 90)
    centers = (boxes[owner, :2] + boxes[owner, 2:]).numpy() / 2
    assert np.abs(np.stack([x, y], axis=1) + 0.5 - centers).max() < 8
    alone = [len(pixel_samples(boxes[[k]], torch.tensor([1]), sizes, (90, 90))[0]) for k in range(3)]
    assert np.bincount(owner).tolist() == alone


def test_negatives_are_the_hardest_of_those_drawn() -> None:
    torch.manual_seed(0)
    logits, usable = torch.arange(1000.0), torch.arange(1000) % 2 == 0
    drawn = hard_negatives(logits, usable, 50)
    assert len(drawn) == 50 and usable[drawn].all()
    assert logits[drawn].mean() > 600, "a uniform draw has a mean of 500"
    assert len(hard_negatives(logits, torch.zeros(1000, dtype=torch.bool), 50)) == 0


def test_loss_by_hand() -> None:
    """One positive of logit 2 and 15 negatives of logit -1: (ln(1 + e^-2) + 15 ln(1 + e^-1)) / 16."""
    torch.manual_seed(0)
    logits = torch.full((1, 1, 1, 9, 9), -1.0)
    logits[..., 4, 4] = 2.0
    target = {"boxes": torch.tensor([[2.0, 2.0, 7.0, 7.0]]), "labels": torch.tensor([1])}
    expected = (np.log1p(np.exp(-2)) + 15 * np.log1p(np.exp(-1))) / 16
    loss = sampled_logistic_loss(logits, [target], one_block([[5, 5]]), [(9, 9)], 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_padding_is_no_sample_and_images_without_objects_have_negatives() -> None:
    logits = torch.full((1, 1, 1, 16, 16), 50.0)
    logits[..., :8, :8] = -50.0
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert sampled_logistic_loss(logits, [nothing], one_block([[5, 5]]), [(8, 8)], 0.5).item() < 1e-6
    assert sampled_logistic_loss(logits, [nothing], one_block([[5, 5]]), [(16, 16)], 0.5).item() > 10


# --- training and checkpoints ----------------------------------------------------------------------------


def test_a_few_steps_on_two_images_find_their_objects() -> None:
    """Bright squares of two sizes: the loss falls, and each is found in its place."""
    torch.manual_seed(5)
    model: Any = build_model("pixel_network", n_classes=1, min_size=64, max_size=64)
    model.box_sizes_hw.copy_(torch.tensor([6.0, 12.0, 20.0, 28.0, 40.0])[:, None, None].expand(5, 1, 2))
    truths = [[12.0, 20.0, 24.0, 32.0], [24.0, 16.0, 52.0, 44.0]]
    images = torch.full((2, 3, 64, 64), 0.1)
    for image, (x1, y1, x2, y2) in zip(images, truths, strict=True):
        image[:, int(y1) : int(y2), int(x1) : int(x2)] = 0.9
    targets = [{"boxes": torch.tensor([box]), "labels": torch.tensor([1])} for box in truths]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = model(list(images), targets)["classification"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    detector = detector_of(model, classes=("square",))
    arrays = [(image * 255).byte().permute(1, 2, 0).numpy() for image in images]
    for found, truth in zip(detector.predict(arrays), truths, strict=True):
        assert found.scores[0] > 0.5
        box = torch.from_numpy(found.boxes_xyxy[:1])
        assert box_iou(box, torch.tensor([truth])).item() > 0.5


def test_quarry_trains_it_with_sizes_of_its_objects(coco_folder: Path, tmp_path: Path) -> None:
    settings = TrainSettings(
        architecture="pixel_network", epochs=10, batch_size=4, learning_rate=1e-2, min_size=96, max_size=128,
        validation_fraction=0.2, threads=1, device="cpu",
    )  # fmt: skip
    where: dict[str, Any] = {
        "labels": str(coco_folder / "instances.json"), "images": str(coco_folder / "images"), "seed": 1,
    }  # fmt: skip
    report = train_detector(settings, **where, out=str(tmp_path / "a.pt"))
    assert report.losses[-1] < 0.8 * report.losses[0]
    detector = load_detector(DetectorSettings(weights=str(tmp_path / "a.pt")), "cpu")
    assert detector.card.architecture == "pixel_network"
    assert isinstance(detector, TorchvisionDetector)
    sizes = detector.model.box_sizes_hw
    assert (sizes[..., 0] == sizes[..., 1]).all(), "all objects are squares"
    assert 24 <= sizes.min() < sizes.max() <= 48
    again = train_detector(settings, **where, out=str(tmp_path / "b.pt"))
    assert again.losses == report.losses
    tuned = train_detector(
        settings.model_copy(update={"epochs": 1}), **where, start_from=str(tmp_path / "a.pt"),
        out=str(tmp_path / "c.pt"),
    )  # fmt: skip
    assert tuned.losses[0] < report.losses[0]


def test_labels_without_image_sizes_are_refused(coco_folder: Path, tmp_path: Path) -> None:
    labels = coco_folder / "instances.json"
    labels.write_text(labels.read_text().replace('"width"', '"w"'))
    settings = TrainSettings(architecture="pixel_network", epochs=1, threads=1, device="cpu")
    with pytest.raises(QuarryError, match="give no width and height; pixel_network needs them"):
        train_detector(settings, labels=str(labels), images=str(coco_folder / "images"), seed=1,
                       out=str(tmp_path / "a.pt"))  # fmt: skip


def test_checkpoint_round_trip(model: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        model.box_sizes_hw += 7
    uri = str(tmp_path / "a.pt")
    weights = dict(model.state_dict())
    save_checkpoint(
        Checkpoint(architecture="pixel_network", classes=CLASSES, head="sigmoid", weights=weights,
                   **TINY_SIZE_PX),
        uri, half=False,
    )  # fmt: skip
    stored = load_detector(DetectorSettings(weights=uri), "cpu")
    direct = detector_of(model, outputs=Outputs(), keep=KeepThresholds(
        eta0=0.05, detections_per_image=300, nms_iou=0.5))  # fmt: skip
    assert stored.model_id == direct.model_id
    image = random_images([(120, 200)])
    one, other = stored.predict(image)[0], direct.predict(image)[0]
    assert len(one) > 10
    np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
    np.testing.assert_array_equal(one.scores, other.scores)
    with torch.no_grad():
        model.box_sizes_hw += 1
    assert detector_of(model, outputs=Outputs(), keep=direct.keep).model_id != stored.model_id


# --- detections ------------------------------------------------------------------------------------------


def test_boxes_are_the_fixed_ones_round_local_maxima(model: Any) -> None:
    """Every candidate of an image by a loop over cells; what is kept is among them, the best first."""
    model.box_sizes_hw += torch.tensor([[0.0, 0.0], [9.0, 2.0], [3.0, 14.0]])
    image = random_images([(96, 128)])[0]
    found = detector_of(model).predict([image])[0]
    with torch.inference_mode():
        images, _ = model.transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        levels = [level[0].sigmoid() for level in model.head(list(model.backbone(images.tensors).values()))]
    candidates = []
    for sizes, level in zip(model.box_sizes_hw.tolist(), levels, strict=True):
        stride = 96 // level.shape[1]
        for (k, i, j), score in np.ndenumerate(level.numpy()):
            window = level[k, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            if score >= KEEP.eta0 and score >= window.max() - 1e-7:
                (height, width), cy, cx = sizes[k], (i + 0.5) * stride, (j + 0.5) * stride
                box = [max(0, cx - width / 2), max(0, cy - height / 2),
                       min(128, cx + width / 2), min(96, cy + height / 2)]  # fmt: skip
                candidates.append((score, k + 1, box))
    scores, labels = (np.array([c[i] for c in candidates]) for i in (0, 1))
    boxes = np.array([box for _, _, box in candidates])
    assert len(found) > 10
    for box, label, score in zip(found.boxes_xyxy, found.labels, found.scores, strict=True):
        apart = np.abs(boxes - box).max(axis=1) + np.abs(scores - score) + (labels != label)
        assert apart.min() < 1e-4
    assert found.scores[0] == pytest.approx(scores.max(), abs=1e-6)


def test_features_give_the_logits(model: Any) -> None:
    for found in detector_of(model).predict(random_images([(120, 200), (97, 301)])):
        assert found.features is not None and found.features.shape == (len(found), 128)
        logits = model.head.logits(torch.from_numpy(found.features)[:, :, None, None]).flatten(1)
        np.testing.assert_allclose(logits.detach().numpy(), found.logits, atol=1e-3)


def test_maps_are_probabilities_of_every_pixel(model: Any) -> None:
    """97 x 301 px is fed as 51 x 160: five maps of that size, padding left out."""
    found = detector_of(model).predict(random_images([(97, 301)]))[0]
    assert found.maps is not None and [level.shape for level in found.maps] == [(51, 160)] * 5
    assert all((level >= 0).all() and (level <= 1).all() for level in found.maps)
    best = max(level.max() for level in found.maps)
    assert found.scores[0] - 0.1 < best <= found.scores[0] + 1e-6, "pixels lie half a px beside their cell"


def test_maps_are_upsampled_bilinearly(model: Any) -> None:
    image = random_images([(96, 128)])[0]
    maps = detector_of(model).predict([image])[0].maps
    with torch.inference_mode():
        images, _ = model.transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        coarsest = model.head(list(model.backbone(images.tensors).values()))[-1][0]
    assert maps is not None
    logits = coarsest[:, 1, 2:4].numpy()  # cells round (48, 80) and (48, 112)
    between = logits @ np.array([1 - 8.5 / 32, 8.5 / 32])
    down = coarsest[:, 2, 2:4].numpy() @ np.array([1 - 8.5 / 32, 8.5 / 32])
    expected = (between * (1 - 0.5 / 32) + down * (0.5 / 32)).max()
    assert maps[-1][48, 88] == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-5)


def test_no_candidates_in_the_padding(model: Any) -> None:
    """12 x 640 px is fed as 3 x 160 in 32 x 160: only the two finest blocks have centers in the image."""
    found = detector_of(model).predict(random_images([(12, 640)]))[0]
    assert len(found) > 0
    assert found.maps is not None and found.maps[0].shape == (3, 160)
    assert found.boxes_xyxy[:, 0].min() >= 0
    half_widths = {float(w) for w in model.box_sizes_hw[:2, :, 1].flatten() * 4 / 2}
    inner = (found.boxes_xyxy[:, 0] > 0) & (found.boxes_xyxy[:, 2] < 640)
    halves = (found.boxes_xyxy[inner, 2] - found.boxes_xyxy[inner, 0]) / 2
    assert inner.any() and {float(h) for h in halves} <= half_widths


def test_dropout_draws_only_where_enabled(model: Any) -> None:
    detector = detector_of(model)
    image = random_images([(120, 200)])

    def maps() -> np.ndarray[Any, Any]:
        return np.stack(detector.predict(image)[0].maps or ())

    certain = maps()
    np.testing.assert_array_equal(maps(), certain)
    with dropout_enabled(detector.model):
        torch.manual_seed(1)
        first, second = maps(), maps()
        torch.manual_seed(1)
        np.testing.assert_array_equal(maps(), first)
        assert not any(m.training for m in detector.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(maps(), certain)
    with pytest.raises(RuntimeError), dropout_enabled(detector.model):
        raise RuntimeError
    np.testing.assert_array_equal(maps(), certain)
