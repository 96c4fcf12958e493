"""Judges crops of people, faces and hands: p(abnormal) by their part's classifier."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from human_anomaly.data.crops import cut
from human_anomaly.data.stream import batched
from human_anomaly.data.transforms import normalize, resize_size
from human_anomaly.data.video import VideoError
from human_anomaly.models.classifier import InputForm
from human_anomaly.models.detector import PartBox
from human_anomaly.models.device import Stopwatch, own_precision
from human_anomaly.models.on_device import Region, bicubic, bilinear, resize

CROPS_PER_BATCH = 64
MOST_PIXELS = 2**26  # of crops that are resized together on a device: about 1 GiB
CROPS_PER_CPU_BATCH = 8  # as fast per crop as 64, and all cores stay busy to the end


class CropJudge:
    """Gives p(abnormal) of crops: `judge("hand", [crop, ...])` for (h, w, 3) uint8 BGR.

    `classifiers` maps parts to modules from (B, 3, size, size) to (B,) logits on `device`, and
    `form` says how a crop becomes their input. Crops may be regions of frames on the device; they
    are then resized there, at most one grey level off.
    """

    def __init__(
        self,
        classifiers: Mapping[str, nn.Module],
        form: InputForm,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        threads: int = 1,
        clock: Stopwatch | None = None,
    ):
        self.classifiers, self.device, self.dtype = classifiers, device, dtype
        self.batch_size = CROPS_PER_CPU_BATCH if device.type == "cpu" else CROPS_PER_BATCH
        self.transform = form.transform()
        self.clock = clock or Stopwatch()
        self._size, self._crop = form.size, form.crop
        self._kernel = {"bicubic": bicubic, "bilinear": bilinear}[form.interpolation]
        self._rgb = form.channels == "rgb"
        self._map = ThreadPoolExecutor(threads, "crops").map if threads > 1 else map

    def __call__(self, part: str, crops: Sequence[np.ndarray]) -> list[float]:
        judged = [self._judge(part, batch) for batch in batched(crops, self.batch_size)]
        return _finite(part, torch.cat(judged).tolist() if judged else [])

    def squares(
        self,
        images: Sequence[np.ndarray | Region],
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
        crops = {
            part: [cut(images[number], square) for number, square in squares]
            for part, squares in found.items()
        }
        if any(isinstance(crop, Region) for crop in chain(*crops.values())):
            crops = self._on_device(crops)
        batches = [
            (part, of_part[start : start + self.batch_size])
            for part, of_part in crops.items()
            for start in range(0, len(of_part), self.batch_size)
        ]
        judged = list(run(lambda batch: self._judge(*batch), batches))
        p = iter(torch.cat(judged).tolist() if judged else ())  # waits for a GPU once
        return {
            part: dict(zip(squares, _finite(part, list(islice(p, len(squares)))), strict=True))
            for part, squares in found.items()
        }

    def _judge(self, part: str, crops: Sequence[np.ndarray] | Tensor) -> Tensor:
        """Return p (B,), on the device, of a batch of arrays or of pixels there."""
        with torch.inference_mode(), own_precision(self.device.type, self.dtype):
            if not isinstance(crops, Tensor):
                with self.clock.stage("resize"):
                    crops = torch.stack(list(self._map(self._pixels, crops)))
            with self.clock.stage("classify"):
                images = normalize(crops.to(self.device, non_blocking=True)).to(self.dtype)
                return self.classifiers[part](images).float().sigmoid()

    def _pixels(self, crop: np.ndarray) -> Tensor:
        """Return the resized crop (size, size, 3) uint8, its channels in the classifiers' order."""
        fed = np.ascontiguousarray(crop[:, :, ::-1] if self._rgb else crop)
        return torch.from_numpy(self.transform.pixels(Image.fromarray(fed)))

    @torch.inference_mode()
    def _on_device(self, crops: Mapping[str, Sequence[Region]]) -> dict[str, Tensor]:
        """Return each part's crops (B, size, size, 3) float32, resized on the device."""
        regions = list(chain.from_iterable(crops.values()))
        old = np.array([region.shape[:2] for region in regions], np.float64)
        new, first = np.full_like(old, self._size), np.zeros_like(old)
        if self._crop:  # rounded as torchvision does
            whole = resize_size(self._size, True)
            new = np.floor(whole * old / old.min(1, keepdims=True))
            first = np.round((new - self._size) / 2)
        scales = old / new
        centres = (np.arange(self._size) + first[..., None] + 0.5) * scales[..., None] - 0.5
        # The largest first, because crops that are resized together take the memory of the largest.
        order, resized = np.argsort(-old.max(1), kind="stable"), []
        with self.clock.stage("resize"), own_precision(self.device.type):
            while len(rows := order[sum(map(len, resized)) :]):
                rows = rows[: max(int(MOST_PIXELS / old[rows[0]].max() ** 2), 1)]
                of_rows, numbers = [regions[row] for row in rows], (centres[rows], scales[rows])
                resized.append(resize(of_rows, *numbers, self._kernel, rgb=self._rgb))
            back = torch.from_numpy(np.argsort(order)).to(self.device, non_blocking=True)
            pixels = torch.cat(resized)[back].permute(0, 1, 3, 2)
        return dict(zip(crops, pixels.split([*map(len, crops.values())]), strict=True))


def _finite(part: str, probabilities: list[float]) -> list[float]:
    if not all(map(math.isfinite, probabilities)):
        raise VideoError(f"the {part} classifier gives a p(abnormal) that is not a number")
    return probabilities
