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
LEAST_SIZE_PX = {"min_size": 64, "max_size": 128}
SQUARE_PX = 12


@torch.no_grad()
def random_model(architecture: str, n_classes: int = len(CLASSES)) -> Any:
    """A model whose random head tells classes and places apart, so that many boxes pass a low threshold.

    The last layers are scaled by what they make of a random image: activations of random weights are huge in
    one architecture and vanish in another.
    """
    fixed_size = architecture.startswith("ssd")
    sizes = (
        {} if fixed_size else TINY_SIZE_PX if architecture.startswith(("small", "pixel")) else LEAST_SIZE_PX
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model: Any = build_model(architecture, n_classes=n_classes, **sizes)
        model.eval()
        image = torch.from_numpy(random_images([(120, 200)], seed=SEED + 1)[0]).permute(2, 0, 1) / 255
        pyramid = model.backbone(model.transform([image])[0].tensors)
        maps = list(pyramid.values())
        if "rcnn" in architecture:
            _spread_proposals(model, pyramid)
        elif architecture == "pixel_network":
            _spread(model.head.logits, model.head.features(maps), std=2.0)
        elif fixed_size:
            heads = model.head.classification_head.module_list, model.head.regression_head.module_list
            for classify, move, level in zip(*heads, maps, strict=True):
                _spread(classify, [level], std=2.0)
                _spread(move, [level], std=0.3)
        else:
            _tell_classes_apart(model.head, maps, n_classes)
    return model


def _spread(module: torch.nn.Module, inputs: list[torch.Tensor], std: float, mean: float = 0.0) -> None:
    """Give every column of a module's outputs this mean, and all of them this standard deviation."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    last: Any = [layer for layer in module.modules() if isinstance(layer, kinds)][-1]
    torch.nn.init.zeros_(last.bias)
    torch.nn.init.normal_(last.weight)
    outputs = torch.cat([module(values).transpose(1, -1).reshape(-1, len(last.bias)) for values in inputs])
    centers = outputs.mean(dim=0) if len(outputs) > 1 else torch.zeros_like(outputs[0])
    scale = std / (outputs - centers).std()
    last.weight *= scale
    last.bias.copy_(mean - scale * centers)


def _spread_proposals(model: Any, pyramid: Any) -> None:
    # torchvision hands on 1000 proposals: the box heads of the second versions need seconds for them.
    model.rpn._post_nms_top_n["testing"] = 60
    maps = list(pyramid.values())
    _spread(model.rpn.head.cls_logits, [model.rpn.head.conv(level) for level in maps], std=2.0)
    corners = torch.rand(20, 2) * 50
    proposals = [torch.cat([corners, corners + 5 + torch.rand(20, 2) * 40], dim=1)]
    heads = model.roi_heads
    pooled = heads.box_head(heads.box_roi_pool(pyramid, proposals, [(96, 96)]))
    _spread(heads.box_predictor.cls_score, [pooled], std=2.0)
    _spread(heads.box_predictor.bbox_pred, [pooled], std=0.5)


def _tell_classes_apart(head: Any, maps: list[torch.Tensor], n_classes: int) -> None:
    classify, move = head.classification_head, head.regression_head
    _spread(classify.cls_logits, [classify.conv(level) for level in maps], std=2.0, mean=-2.0)
    # The column of label 0 is never trained; keep it out of sight as training does.
    classify.cls_logits.bias.view(-1, n_classes + 1)[:, 0] = -60.0
    torch.nn.init.zeros_(
        classify.cls_logits.weight.view(-1, n_classes + 1, *classify.cls_logits.weight.shape[1:])[:, 0]
    )
    towers = [move.conv(level) for level in maps]
    if hasattr(move, "bbox_ctrness"):
        # Distances below 0 are cut to 0: keep them above, or boxes have no area.
        _spread(move.bbox_reg, towers, std=0.5, mean=2.5)
        _spread(move.bbox_ctrness, towers, std=1.0)
    else:
        _spread(move.bbox_reg, towers, std=0.1)


def random_detector(architecture: str, **changes: Any) -> TorchvisionDetector:
    keep = KeepThresholds(eta0=0.05, detections_per_image=100, nms_iou=0.5)
    options: dict[str, Any] = {"architecture": architecture, "classes": CLASSES, "keep": keep, **changes}
    return TorchvisionDetector(random_model(architecture), **options)


def random_images(sizes_hw: list[tuple[int, int]], seed: int = SEED) -> list[np.ndarray[Any, Any]]:
    """Squares of random colors; noise of single pixels looks the same everywhere to a network."""
    random = np.random.default_rng(seed)
    images = []
    for height, width in sizes_hw:
        colors = random.integers(0, 256, (-(-height // SQUARE_PX), -(-width // SQUARE_PX), 3), dtype=np.uint8)
        squares = colors.repeat(SQUARE_PX, axis=0).repeat(SQUARE_PX, axis=1)
        images.append(np.ascontiguousarray(squares[:height, :width]))
    return images


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
