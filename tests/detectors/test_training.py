"""Training: data reading, views, the split, falling loss, determinism."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conf.errors import QuarryError
from conf.settings import DetectorSettings, TrainSettings
from detectors.augmentation import training_view, view_generator
from detectors.checkpoint import load_checkpoint
from detectors.coco_images import UnusableImage, displayed_image, read_coco_images, split_by_group
from detectors.load import load_detector
from detectors.training import EpochProgress, TrainingReport, train_detector


def train(
    folder: Path, out: Path, seed: int = 1, **changes: Any
) -> tuple[TrainingReport, list[EpochProgress]]:
    values = {"epochs": 4, "batch_size": 4, "learning_rate": 3e-3, "min_size": 96, "max_size": 128,
              "validation_fraction": 0.2, "threads": 1, "device": "cpu", **changes}  # fmt: skip
    epochs: list[EpochProgress] = []
    report = train_detector(
        TrainSettings.model_validate(values),
        labels=str(folder / "instances.json"),
        images=str(folder / "images"),
        out=str(out),
        seed=seed,
        progress=epochs.append,
    )
    return report, epochs


def test_training_learns_and_is_deterministic(coco_folder: Path, tmp_path: Path) -> None:
    report, epochs = train(coco_folder, tmp_path / "a.pt")
    assert report.losses[-1] < 0.7 * report.losses[0]
    assert [p.epoch for p in epochs] == [1, 2, 3, 4]
    assert epochs[0].remaining_s == pytest.approx(3 * epochs[0].epoch_s)
    assert epochs[-1].remaining_s == 0
    assert list(report.unusable) == [str(coco_folder / "images" / "02.png")]
    assert report.n_train_images + report.n_validation_images == 15
    assert report.classes == ("square", "tile")
    again, _ = train(coco_folder, tmp_path / "b.pt")
    assert again.losses == report.losses
    first, second = (
        load_detector(DetectorSettings(weights=str(tmp_path / name)), "cpu") for name in ("a.pt", "b.pt")
    )
    assert first.model_id == second.model_id
    other, _ = train(coco_folder, tmp_path / "c.pt", seed=2, epochs=1)
    assert other.losses[0] != report.losses[0]
    recipe = load_checkpoint(str(tmp_path / "a.pt")).recipe
    assert recipe["ap50"] == report.ap50
    assert recipe["settings"]["epochs"] == 4


def test_retinanet_starts_from_a_checkpoint(coco_folder: Path, tmp_path: Path) -> None:
    first, _ = train(coco_folder, tmp_path / "a.pt", architecture="small_retinanet", epochs=6)
    assert first.losses[-1] < first.losses[0]
    settings = TrainSettings(
        architecture="small_retinanet",
        epochs=1,
        batch_size=4,
        min_size=96,
        max_size=128,
        threads=1,
        device="cpu",
    )
    where: dict[str, Any] = {
        "labels": str(coco_folder / "instances.json"),
        "images": str(coco_folder / "images"),
        "start_from": str(tmp_path / "a.pt"),
        "seed": 1,
    }
    tuned = train_detector(settings, **where, out=str(tmp_path / "b.pt"))
    assert tuned.losses[0] < first.losses[0]
    with pytest.raises(QuarryError, match="expected a small_fasterrcnn to start from, got a small_retinanet"):
        train_detector(
            settings.model_copy(update={"architecture": "small_fasterrcnn"}),
            **where,
            out=str(tmp_path / "c.pt"),
        )


def test_reads_folders_and_renumbers_categories_by_name(tmp_path: Path) -> None:
    for k, names in enumerate((["car", "bus"], ["bus", "car"])):
        part = {
            "images": [{"id": 1, "file_name": f"{k}.jpg", "width": 50, "height": 40}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 100, 10]},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [60, 10, 10, 10]},
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        }
        (tmp_path / f"drive-{k}").mkdir()
        (tmp_path / f"drive-{k}" / "instances.json").write_text(json.dumps(part))
    images, classes = read_coco_images(str(tmp_path), "/data")
    assert classes == ("car", "bus")
    assert [i.uri for i in images] == ["/data/0.jpg", "/data/1.jpg"]
    assert [i.truth.labels.tolist() for i in images] == [[1], [2]]
    assert images[0].truth.boxes_xyxy.tolist() == [[10, 10, 50, 20]]
    assert len(read_coco_images(str(tmp_path / "*" / "instances.json"), "/data")[0]) == 2
    swapped, _ = read_coco_images(str(tmp_path), "s3://bucket/images", ("bus", "car"))
    assert [i.truth.labels.tolist() for i in swapped] == [[2], [1]]
    assert swapped[0].uri == "s3://bucket/images/0.jpg"
    with pytest.raises(QuarryError, match="has class 'car'; expected bus"):
        read_coco_images(str(tmp_path), "/data", ("bus",))


def test_annotation_errors(tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match="no COCO annotations at"):
        read_coco_images(str(tmp_path / "none.json"), ".")
    (tmp_path / "a.json").write_text("[1")
    with pytest.raises(QuarryError, match="cannot be read as COCO JSON"):
        read_coco_images(str(tmp_path / "a.json"), ".")
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(QuarryError, match="no COCO annotations; expected the lists"):
        read_coco_images(str(tmp_path / "a.json"), ".")
    (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(QuarryError, match="not one object"):
        read_coco_images(str(tmp_path / "a.json"), ".")


def test_sequences_stay_whole(coco_folder: Path) -> None:
    images, _ = read_coco_images(str(coco_folder), str(coco_folder / "images"))
    for seed in range(5):
        train_images, held_out = split_by_group(images, 0.25, seed)
        assert {i.group for i in train_images}.isdisjoint(i.group for i in held_out)
        assert len(held_out) == 4 and len(train_images) == 12
    assert split_by_group(images, 0.0, 0)[1] == []
    assert len(split_by_group(images, 0.99, 0)[0]) == 2, "one sequence is always trained on"
    assert {i.group for i in split_by_group(images, 0.25, 0)[1]} != {
        i.group for i in split_by_group(images, 0.25, 1)[1]
    }


def partly_labeled(folder: Path, groups: set[str], noisy: bool = False) -> None:
    """Marks the images of these groups as not complete, or by a noisy box in each of them."""
    content = json.loads((folder / "instances.json").read_text())
    marked = {image["id"] for image in content["images"] if image["sequence_id"] in groups}
    for image in content["images"]:
        if image["id"] in marked and not noisy:
            image["complete"] = False
    for annotation in content["annotations"]:
        if annotation["image_id"] in marked and noisy:
            annotation["noisy"] = 1
    (folder / "instances.json").write_text(json.dumps(content))


def test_noisy_boxes_and_partly_labeled_images_are_read(tmp_path: Path) -> None:
    boxes = [([5, 5, 10, 10], 0), ([5, 5, 0, 10], 1), ([20, 5, 10, 10], 1), ([30, 20, 10, 10], None)]
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "complete": True},
            {"id": 2, "file_name": "b.jpg", "complete": False},
            {"id": 3, "file_name": "c.jpg"},
        ],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 1, "bbox": bbox, **({} if n is None else {"noisy": n})}
            for k, (bbox, n) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "car"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    images, _ = read_coco_images(str(tmp_path), "/data")
    assert [i.noisy.tolist() for i in images] == [[False, True, False], [], []]
    assert images[0].truth.boxes_xyxy[images[0].noisy].tolist() == [[20, 5, 30, 15]]
    assert [i.complete for i in images] == [False, False, True], "a noisy box is no complete label"
    assert all(i.noisy.dtype == bool for i in images)


@pytest.mark.parametrize("noisy", [False, True])
def test_partly_labeled_groups_are_never_held_out(coco_folder: Path, noisy: bool) -> None:
    everywhere = {f"seq-{k}" for k in range(8)}
    partly_labeled(coco_folder, everywhere - {"seq-2", "seq-5"}, noisy)
    images, _ = read_coco_images(str(coco_folder), str(coco_folder / "images"))
    seen = set()
    for seed in range(12):
        train_images, held_out = split_by_group(images, 0.25, seed)
        assert len(held_out) == 2 and all(i.complete for i in held_out)
        assert len(train_images) + len(held_out) == 16
        assert {i.group for i in train_images}.isdisjoint(i.group for i in held_out)
        seen.add(held_out[0].group)
    assert seen == {"seq-2", "seq-5"}
    assert {i.group for i in split_by_group(images, 0.9, 0)[1]} == {"seq-2", "seq-5"}
    assert split_by_group(images, 0.0, 0)[1] == []


def test_one_partly_labeled_image_keeps_its_group_in_training(coco_folder: Path) -> None:
    images, _ = read_coco_images(str(coco_folder), str(coco_folder / "images"))
    images[4] = replace(images[4], complete=False)
    for seed in range(8):
        train_images, held_out = split_by_group(images, 0.9, seed)
        assert {i.group for i in train_images} == {"seq-2"}
        assert len(held_out) == 14


def test_nothing_is_held_out_where_no_image_is_complete(coco_folder: Path, tmp_path: Path) -> None:
    partly_labeled(coco_folder, {f"seq-{k}" for k in range(8)})
    report, _ = train(coco_folder, tmp_path / "a.pt", epochs=1)
    assert report.ap is None and report.n_validation_images == 0
    assert report.n_train_images == 15


ARCHITECTURES = ("small_fasterrcnn", "small_retinanet", "pixel_network")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_noisy_boxes_are_trained_on_at_their_weight(
    coco_folder: Path, tmp_path: Path, architecture: str
) -> None:
    """The same weights, views and draws: the first losses differ by the noisy boxes' weight alone."""
    partly_labeled(coco_folder, {f"seq-{k}" for k in range(4)}, noisy=True)
    losses = {}
    for weight in (0.0, 0.5):
        out = tmp_path / f"{weight}.pt"
        report, _ = train(coco_folder, out, architecture=architecture, epochs=2, noisy_weight=weight)
        assert np.isfinite(report.losses).all()
        assert report.ap is not None and report.n_train_images == 13
        assert load_detector(DetectorSettings(weights=str(out)), "cpu").card.architecture == architecture
        assert load_checkpoint(str(out)).recipe["settings"]["noisy_weight"] == weight
        losses[weight] = report.losses
    assert losses[0.5][0] > losses[0.0][0] + 1e-3


def test_box_sizes_are_those_of_labeled_objects(coco_folder: Path, tmp_path: Path) -> None:
    """All objects have sides of 24 to 47 px but one noisy box; where all are noisy they still count."""
    content = json.loads((coco_folder / "instances.json").read_text())
    content["annotations"][5].update(bbox=[0, 0, 120, 90], noisy=1)
    (coco_folder / "instances.json").write_text(json.dumps(content))
    train(coco_folder, tmp_path / "a.pt", architecture="pixel_network", epochs=1, noisy_weight=0)
    sizes = load_checkpoint(str(tmp_path / "a.pt")).weights["box_sizes_hw"]
    assert (sizes[..., 0] == sizes[..., 1]).all() and 24 <= sizes.min() < sizes.max() < 48
    partly_labeled(coco_folder, {f"seq-{k}" for k in range(8)}, noisy=True)
    train(coco_folder, tmp_path / "b.pt", architecture="pixel_network", epochs=1)
    assert (load_checkpoint(str(tmp_path / "b.pt")).weights["box_sizes_hw"] != sizes).any()


def test_exif_orientation_and_sizes(coco_folder: Path) -> None:
    images, _ = read_coco_images(str(coco_folder), str(coco_folder / "images"))
    path = Path(images[0].uri)
    upright = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(path, "PNG", exif=exif)
    assert np.array_equal(np.array(displayed_image(images[0])), np.array(upright))
    upright.transpose(Image.Transpose.ROTATE_90).save(path, "PNG")
    with pytest.raises(UnusableImage, match=r"annotated as \(128, 96\) px, is \(96, 128\)"):
        displayed_image(images[0])


def test_views_move_boxes_with_pixels() -> None:
    """A white box on black: after any scale, crop and flip the box frames what is white in the view."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[30:70, 40:90] = 255
    box, label = np.array([[40, 30, 90, 70]], np.float32), np.array([1], np.int64)
    for epoch in range(30):
        random = view_generator(3, epoch, "image")
        view = training_view(Image.fromarray(pixels), box, label, np.array([False]), (96, 128), random)
        assert view.pixels.shape == (3, 96, 128)
        assert len(view.labels) == 1
        rows, columns = torch.where(view.pixels.float().mean(dim=0) > 0.3 * 255)
        white = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(view.boxes_xyxy[0].numpy(), np.array(white, np.float32), atol=1.6)


def test_views_derive_from_seed_epoch_and_image_only() -> None:
    draws = {
        key: view_generator(*key).random() for key in ((1, 0, "a"), (2, 0, "a"), (1, 1, "a"), (1, 0, "b"))
    }
    assert len(set(draws.values())) == 4
    assert view_generator(1, 0, "a").random() == draws[1, 0, "a"]


def test_boxes_cut_to_a_sliver_are_no_objects() -> None:
    image = Image.new("RGB", (128, 96))
    boxes, labels = np.array([[0, 0, 30, 30], [100, 60, 128, 96]], np.float32), np.array([1, 2], np.int64)
    noisy = np.array([False, True])
    views = [
        training_view(image, boxes, labels, noisy, (96, 128), view_generator(3, epoch, "x"))
        for epoch in range(60)
    ]
    assert {tuple(view.labels.tolist()) for view in views} >= {(1,), (2,), (1, 2)}
    for view in views:
        assert view.noisy.dtype == torch.bool
        assert view.noisy.tolist() == [label == 2 for label in view.labels.tolist()]
        assert len(view.boxes_xyxy) == len(view.labels)


def test_nothing_readable(coco_folder: Path, tmp_path: Path) -> None:
    for path in (coco_folder / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(QuarryError, match="not one of .* training images can be read"):
        train(coco_folder, tmp_path / "a.pt", epochs=1)
    assert not (tmp_path / "a.pt").exists()
