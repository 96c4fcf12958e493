"""Crops of people, faces and hands to p(abnormal), with that part's classifier."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from human_anomaly.data.crops import cut
from human_anomaly.data.stream import batched
from human_anomaly.data.transforms import build_eval_transform, normalize
from human_anomaly.data.video import VideoError
from human_anomaly.models.detector import PartBox
from human_anomaly.models.device import Stopwatch

CROPS_PER_BATCH = 32
CROPS_PER_CPU_BATCH = 8  # takes as long per crop, and keeps all cores busy to the end


class CropJudge:
    """Gives p(abnormal) of crops: `judge("hand", [crop, ...])` for (h, w, 3) uint8 BGR.

    `classifiers` maps parts to modules from (B, 3, size, size) to (B,) logits on `device`. With
    `crop` the centre is cut after resizing. `channels` is the order (rgb or bgr) in which the
    classifiers get a crop. Crops may be tensors on the device; they are then resized there.
    """

    def __init__(
        self,
        classifiers: Mapping[str, nn.Module],
        *,
        size: int,
        crop: bool,
        interpolation: str,
        channels: str,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        threads: int = 1,
        clock: Stopwatch | None = None,
    ):
        self.classifiers, self.device, self.dtype = classifiers, device, dtype
        self.batch_size = CROPS_PER_CPU_BATCH if device.type == "cpu" else CROPS_PER_BATCH
        self.transform = build_eval_transform(size=size, crop=crop, interpolation=interpolation)
        self.clock = clock or Stopwatch()
        self._rgb = channels == "rgb"
        self._map = ThreadPoolExecutor(threads, "crops").map if threads > 1 else map

    @torch.inference_mode()
    def __call__(self, part: str, crops: Sequence[np.ndarray | Tensor]) -> list[float]:
        probabilities: list[float] = []
        for chunk in batched(crops, self.batch_size):
            with self.clock.stage("resize"):
                pixels = torch.stack(list(self._map(self._pixels, chunk)))
            with self.clock.stage("classify"):
                images = normalize(pixels.to(self.device)).to(self.dtype)
                logits = self.classifiers[part](images)
                probabilities += logits.float().sigmoid().tolist()
        if not all(map(math.isfinite, probabilities)):
            raise VideoError(f"the {part} classifier gives a p(abnormal) that is not a number")
        return probabilities

    def squares(
        self,
        images: Sequence[np.ndarray | Tensor],
        boxes: Sequence[Sequence[PartBox]],
        run: Callable[..., Iterable] = map,
    ) -> dict[str, dict[tuple, float]]:
        """Return, by part, {(image's number, square): p} of the boxes in each of `images`.

        A square that several boxes share is judged once; parts without a classifier are left out.
        `run` is like `map`, and may judge several batches at the same time.
        """
        found: dict[str, dict] = {part: {} for part in self.classifiers}
        for number, of_image in enumerate(boxes):
            for box in of_image:
                if box.part in found:
                    found[box.part][number, box.square] = None
        batches = [
            (part, batch)
            for part, squares in found.items()
            for batch in batched(list(squares), self.batch_size)
        ]

        def judge(batch: tuple[str, Sequence]) -> list[float]:
            part, squares = batch
            return self(part, [cut(images[number], square) for number, square in squares])

        for (part, squares), p in zip(batches, run(judge, batches), strict=True):
            found[part].update(zip(squares, p, strict=True))
        return found

    def _pixels(self, crop: np.ndarray | Tensor) -> Tensor:
        """Return the resized crop (size, size, 3) uint8, its channels in the classifiers' order."""
        if isinstance(crop, Tensor):
            return self.transform.pixels_on_device(crop.flip(2) if self._rgb else crop)
        fed = np.ascontiguousarray(crop[:, :, ::-1] if self._rgb else crop)
        return torch.from_numpy(self.transform.pixels(Image.fromarray(fed)))
