"""Detection without Spark: Quarry's worker alone, and the loops it is compared with."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from conf.settings import DetectorSettings, DetectSettings
from detectors.load import describe_detector, load_detector
from detectors.torchvision_detector import TorchvisionDetector
from udfs.detect import detect_batches

MAX_PIXELS = 200_000_000
GROUPS_AHEAD = 2
MOST_CEILING_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One comparison: the same images, model, batch and threads for every variant.

    Attributes:
        uris: Image files.
        detector: The model.
        batch_size: Images of a forward pass.
        threads: CPU threads in all.
        readers: Of these, threads that read ahead (they add to `threads` where the model is on a GPU).
        device: `cpu` or `cuda`.
    """

    uris: Sequence[str]
    detector: DetectorSettings
    batch_size: int
    threads: int
    readers: int
    device: str

    def model(self) -> TorchvisionDetector:
        """A detector on the device, of which the plain loops use torchvision's own model only."""
        found = load_detector(self.detector, device=self.device)
        assert isinstance(found, TorchvisionDetector)
        return found


def synchronize(device: str) -> None:
    """Waits for what the device has been given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def autocast(bench: Bench) -> AbstractContextManager[Any]:
    """The precision of the loops: the one the detector has."""
    if bench.detector.precision == "float32":
        return nullcontext()
    return torch.autocast(bench.device, dtype=getattr(torch, bench.detector.precision))


def worker_seconds(bench: Bench) -> float:
    """Quarry's worker, one process with all threads: paths in, Arrow rows out."""
    run = DetectSettings(
        batch_size=bench.batch_size,
        threads=bench.threads,
        reader_threads=bench.readers,
        device="cuda" if bench.device.startswith("cuda") else "cpu",
    )
    rows = pa.RecordBatch.from_pydict({"image_id": list(bench.uris), "uri": list(bench.uris)})
    model_id = describe_detector(bench.detector).model_id
    start_s = time.perf_counter()
    found = detect_batches(iter([rows]), bench.detector, run, MAX_PIXELS, model_id)
    assert sum(batch.num_rows for batch in found) == len(bench.uris)
    return time.perf_counter() - start_s


def bare_loop_seconds(bench: Bench) -> float:
    """What a careful engineer writes: threads read ahead, torchvision's model runs on batches."""
    model = bench.model().model
    torch.set_num_threads(bench.threads)
    start_s = time.perf_counter()
    with torch.inference_mode(), autocast(bench), ThreadPoolExecutor(bench.readers) as readers:
        for images in _read_ahead(bench, readers):
            outputs = model([_tensor(image, bench.device) for image in images])
            _keep(outputs)
    return time.perf_counter() - start_s


def single_image_loop_seconds(bench: Bench) -> float:
    """What evaluation scripts commonly do: read one image, run the model on it, keep the result."""
    model = bench.model().model
    torch.set_num_threads(bench.threads)
    start_s = time.perf_counter()
    with torch.no_grad(), autocast(bench):
        for uri in bench.uris:
            outputs = model([_tensor(_decoded(uri), bench.device)])
            _keep(outputs)
    return time.perf_counter() - start_s


def model_alone_seconds(bench: Bench) -> float:
    """The ceiling: torchvision's whole model call on tensors that lie on the device already."""
    model = bench.model().model
    torch.set_num_threads(bench.threads)
    few = [_tensor(_decoded(uri), bench.device) for uri in bench.uris[: 4 * bench.batch_size]]
    batches = [few[i : i + bench.batch_size] for i in range(0, len(few), bench.batch_size)]
    n = 0
    with torch.inference_mode(), autocast(bench):
        model(batches[0])
        synchronize(bench.device)
        start_s = time.perf_counter()
        while n < len(bench.uris) and time.perf_counter() - start_s < MOST_CEILING_S:
            images = batches[(n // bench.batch_size) % len(batches)]
            model(images)
            n += len(images)
        synchronize(bench.device)
    return (time.perf_counter() - start_s) * len(bench.uris) / n


VARIANTS: dict[str, Callable[[Bench], float]] = {
    "worker": worker_seconds,
    "bare_loop": bare_loop_seconds,
    "single_image_loop": single_image_loop_seconds,
    "model_alone": model_alone_seconds,
}


def _read_ahead(bench: Bench, readers: ThreadPoolExecutor) -> Iterator[list[NDArray[np.uint8]]]:
    coming: deque[list[Any]] = deque()
    for start in range(0, len(bench.uris), bench.batch_size):
        coming.append([readers.submit(_decoded, u) for u in bench.uris[start : start + bench.batch_size]])
        if len(coming) > GROUPS_AHEAD:
            yield [read.result() for read in coming.popleft()]
    for reads in coming:
        yield [read.result() for read in reads]


def _decoded(uri: str) -> NDArray[np.uint8]:
    with Image.open(uri) as image:
        return np.array(image.convert("RGB"))


def _tensor(image: NDArray[np.uint8], device: str) -> torch.Tensor:
    return torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255


def _keep(outputs: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    return [{name: values.cpu() for name, values in output.items()} for output in outputs]
