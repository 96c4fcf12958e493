"""One prompt set at a time over many images: letterbox, batch, network, boxes."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.yolo_world.build import load_detector, register
from utils import Stopwatch


@dataclass(frozen=True)
class Detections:
    """Boxes of one image: xyxy (N, 4) float32 pixels, scores (N,), labels (N,) text indices."""

    xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        n = len(self.xyxy)
        if self.xyxy.shape != (n, 4) or self.scores.shape != (n,) or self.labels.shape != (n,):
            raise ValueError(
                f"expected (N, 4), (N,), (N,), got {self.xyxy.shape}, {self.scores.shape}, "
                f"{self.labels.shape}"
            )


class Letterbox:
    """Resizes a BGR image into `size` = (width, height), keeping its aspect, and pads with 114.

    With `to_aspect` the padding ends at the next multiple of 32 instead of the whole size.
    """

    def __init__(self, size: tuple[int, int], *, to_aspect: bool = False):
        register()
        from mmyolo.datasets.transforms import YOLOv5KeepRatioResize

        self.size, self.to_aspect = tuple(size), to_aspect
        self._resize = YOLOv5KeepRatioResize(scale=self.size)
        self._pads: dict[tuple[int, int], object] = {}

    def _resized(self, image: np.ndarray) -> tuple[int, int]:
        """Return width and height after resizing."""
        height, width = image.shape[:2]
        ratio = min(max(self.size) / max(height, width), min(self.size) / min(height, width))
        return int(width * ratio), int(height * ratio)

    def fits(self, image: np.ndarray) -> bool:
        """Return whether both sides keep at least a pixel."""
        return min(self._resized(image)) > 0

    def shape(self, image: np.ndarray) -> tuple[int, int]:
        """Return the padded (width, height) of `image`."""
        if not self.to_aspect:
            return self.size
        return tuple(-(-side // 32) * 32 for side in self._resized(image))

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict]:
        """Return the padded image (H, W, 3) uint8 BGR and what is needed to map boxes back."""
        from mmyolo.datasets.transforms import LetterResize

        size = self.shape(image)
        if size not in self._pads:
            self._pads[size] = LetterResize(scale=size, allow_scale_up=False, pad_val={"img": 114})
        results = {"img": image, "img_shape": image.shape[:2]}
        results = self._pads[size](self._resize(results))
        meta = {
            "ori_shape": image.shape[:2],
            "scale_factor": results["scale_factor"],
            "pad_param": results["pad_param"],
        }
        return results["img"], meta


class Predictor:
    """A YOLO-World checkpoint, ready to find boxes of the given texts; several threads may call it.

    `dtype` is the convolutions' type; float32 gives the reference's numbers. `compile` pays off
    after a minute or more of work.
    """

    def __init__(
        self,
        config: str | Path,
        weights: str | Path,
        texts: Sequence[str],
        device: str | torch.device = "cpu",
        *,
        score_thr: float,
        batch_size: int,
        threads: int,
        dtype: torch.dtype = torch.float32,
        to_aspect: bool = False,
        compile: bool = False,
        clock: Stopwatch | None = None,
    ):
        model, model_config, self.embeddings = load_detector(config, weights, texts)
        self.device, self.dtype = torch.device(device), dtype
        self.clock = clock or Stopwatch()
        self.model = _optimise(model, dtype).to(self.device)
        self.embeddings = self.embeddings.to(self.device)
        # Greedy NMS keeps the same boxes above the threshold whether or not weaker ones run along.
        self.model.bbox_head.test_cfg.score_thr = score_thr
        self.letterbox = Letterbox(model_config.img_scale, to_aspect=to_aspect)
        self.batch_size, self.fill = batch_size, compile
        self._raw = _compiled(self.model.raw) if compile else self.model.raw
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="letterbox")
        self._head_lock = threading.Lock()  # the head remembers how many texts there are

    def __call__(
        self, images: Sequence[np.ndarray], texts: Tensor, stage: str = "detect"
    ) -> list[Detections]:
        """Return the boxes per image (H, W, 3) uint8 BGR for text embeddings (1, N, 512)."""
        # Images of one padded shape share a batch; there is one shape unless `to_aspect`.
        order = sorted(range(len(images)), key=lambda i: self.letterbox.shape(images[i]))
        results: list[Detections | None] = [None] * len(images)
        for batch in self._batches(images, order):
            with self.clock.stage("resize"):
                prepared = list(self._pool.map(self.letterbox, (images[i] for i in batch)))
            with self.clock.stage(stage):
                for i, found in zip(batch, self._boxes(prepared, texts), strict=True):
                    results[i] = found
        return results

    def _batches(self, images: Sequence[np.ndarray], order: Sequence[int]):
        batch: list[int] = []
        for i in order:
            other = batch and self.letterbox.shape(images[i]) != self.letterbox.shape(
                images[batch[0]]
            )
            if batch and (other or len(batch) == self.batch_size):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _boxes(self, prepared: Sequence[tuple[np.ndarray, dict]], texts: Tensor):
        """Return the boxes of letterboxed images of one shape."""
        with torch.inference_mode():
            outs = self.raw([image for image, _ in prepared], texts)
            head = self.model.bbox_head
            outs = [[level[: len(prepared)] for level in levels] for levels in outs]
            metas = [meta for _, meta in prepared]
            with self._head_lock:
                head.num_classes = texts.shape[1]
                found = head.predict_by_feat(*outs, batch_img_metas=metas, rescale=True)
            return [_to_numpy(boxes) for boxes in found]

    def raw(self, images: Sequence[np.ndarray], texts: Tensor) -> tuple[list[Tensor], ...]:
        """Return the head's outputs for letterboxed BGR images of one shape."""
        pixels = np.stack(images)
        if self.fill and len(pixels) < self.batch_size:  # one shape, one compiled graph
            missing = self.batch_size - len(pixels)
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, 0)])
        batch = torch.from_numpy(pixels).to(self.device, non_blocking=True)
        batch = batch.permute(0, 3, 1, 2).flip(1).float().div_(255).to(self.dtype)
        batch = batch.contiguous(memory_format=torch.channels_last)
        return self._raw(batch, texts.to(self.dtype))


def _compiled(function):
    import torch._inductor.config as inductor

    inductor.freezing = True  # weights become constants, laid out once
    return torch.compile(function, dynamic=False)


def _to_numpy(found) -> Detections:
    return Detections(
        found.bboxes.float().cpu().numpy(),
        found.scores.float().cpu().numpy(),
        found.labels.cpu().numpy(),
    )


def _optimise(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Fold each batch norm into the convolution before it, and store weights channels last.

    Folded in float64 and rounded once, which keeps boxes closer to the float64 ones.
    """
    from mmcv.cnn import ConvModule

    for module in model.modules():
        if isinstance(module, ConvModule) and module.with_norm:
            norm = module.norm
            tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            mean, var, scale, shift = (t.double() for t in tensors)
            weight, bias = fuse_conv_bn_weights(
                module.conv.weight.double(), None, mean, var, norm.eps, scale, shift
            )
            module.conv.weight = nn.Parameter(weight.float(), requires_grad=False)
            module.conv.bias = nn.Parameter(bias.float(), requires_grad=False)
            setattr(module, module.norm_name, nn.Identity())
    model.to(dtype)
    model.bbox_head.head_module.cls_contrasts.float()
    model.bbox_head.head_module.proj = model.bbox_head.head_module.proj.float()
    return model.to(memory_format=torch.channels_last)
