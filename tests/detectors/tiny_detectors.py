"""Detectors with fixed random weights that detect something, and a COCO folder small enough to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectors.architectures import build_model
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector

SEED = 7
CLASSES = ("pedestrian", "car", "sign")
TINY_SIZE_PX = {"min_size": 96, "max_size": 160}


def random_model(architecture: str) -> Any:
    """A model whose random head tells classes apart, so that many boxes pass a low threshold."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model: Any = build_model(architecture, n_classes=len(CLASSES), **TINY_SIZE_PX)
        if "rcnn" in architecture:
            predictor = model.roi_heads.box_predictor
            torch.nn.init.normal_(predictor.cls_score.weight, std=0.6)
            torch.nn.init.normal_(predictor.bbox_pred.weight, std=0.3)
        else:
            head = model.head.classification_head.cls_logits
            torch.nn.init.normal_(head.weight, std=0.4)
            # The column of label 0 is never trained; keep it out of sight as training does.
            bias = torch.full((head.bias.numel() // (len(CLASSES) + 1), len(CLASSES) + 1), -3.0)
            bias[:, 0] = -60.0
            head.bias.data = bias.flatten()
            torch.nn.init.zeros_(head.weight.data.view(bias.shape[0], len(CLASSES) + 1, -1)[:, 0])
    return model.eval()


def random_detector(architecture: str, **changes: Any) -> TorchvisionDetector:
    keep = KeepThresholds(eta0=0.05, detections_per_image=100, nms_iou=0.5)
    options: dict[str, Any] = {"architecture": architecture, "classes": CLASSES, "keep": keep, **changes}
    return TorchvisionDetector(random_model(architecture), **options)


def random_images(sizes_hw: list[tuple[int, int]], seed: int = SEED) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes_hw]


def write_coco(folder: Path, n: int = 16) -> Path:
    """Images of a bright square each, in pairs; the second is unreadable, the first has a crowd box."""
    random = np.random.default_rng(SEED)
    (folder / "images").mkdir()
    images, annotations = [], []
    for i in range(1, n + 1):
        pixels = random.integers(0, 60, (96, 128, 3), dtype=np.uint8)
        x, y, side = int(random.integers(4, 70)), int(random.integers(4, 40)), int(random.integers(24, 48))
        label = 1 + i % 2
        pixels[y : y + side, x : x + side] = (250, 60, 40) if label == 1 else (40, 90, 250)
        name = f"{i:02d}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append(
            {"id": i, "file_name": name, "width": 128, "height": 96, "sequence_id": f"seq-{(i - 1) // 2}"}
        )
        annotations.append({"id": i, "image_id": i, "category_id": 10 * label, "bbox": [x, y, side, side],
                            "iscrowd": 0})  # fmt: skip
    annotations.append({"id": 99, "image_id": 1, "category_id": 10, "bbox": [0, 0, 128, 96], "iscrowd": 1})
    (folder / "images" / "02.png").write_bytes(b"no image")
    categories = [{"id": 10, "name": "square"}, {"id": 20, "name": "tile"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder
