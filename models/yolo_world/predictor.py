"""Finding the boxes of one prompt set in many images: letterbox, batch, network, boxes."""

import copy
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from human_anomaly.data.stream import batched
from human_anomaly.data.video import VideoError
from human_anomaly.models.cpu.int8 import Int8Conv2d
from human_anomaly.models.cpu.layers import replace_layers
from human_anomaly.models.cpu.winograd import faster
from human_anomaly.models.device import Stopwatch, own_precision
from human_anomaly.models.yolo_world.boxes import NOT_FINITE, find_boxes
from human_anomaly.models.yolo_world.build import load_detector
from human_anomaly.models.yolo_world.letterbox import DeviceLetterbox, Image, Letterbox


@dataclass(frozen=True)
class Detections:
    """Boxes of one image: xyxy (N, 4) float32 in pixels, scores (N,) in 0..1, labels (N,).

    A label is the index of the text that was found.
    """

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


@dataclass(frozen=True)
class Options:
    """How boxes are found."""

    score_thr: float = 0.1  # boxes need a higher score
    batch_size: int = 4  # images
    threads: int = 1  # that resize images at the same time
    dtype: torch.dtype = torch.float32  # of backbone and neck; float32 gives the reference values
    on_device: bool = False  # images are regions of frames on the device, and are resized there
    compile: bool = False  # then call `compile_all` first


class Predictor:
    """Finds boxes with a YOLO-World checkpoint; several threads may call it.

    `texts` are the prompts to encode, `embeddings` (len(texts), 512) the result. `raw` is
    `YOLOWorldDetector.raw`, maybe compiled; `clock` measures the stages. Raises CheckpointError
    where `config` or `weights` cannot be used.
    """

    def __init__(
        self,
        config: str | Path,
        weights: str | Path,
        texts: Sequence[str],
        device: str | torch.device = "cpu",
        options: Options = Options(),
    ):
        with own_precision("cpu"):
            model, model_config, self.embeddings = load_detector(config, weights, texts)
        self.device, self.dtype = torch.device(device), options.dtype
        self.clock = Stopwatch()
        self.model = _fold(model).to(self.device, memory_format=torch.channels_last)
        if self.dtype != torch.float32:
            _compute_in(self.dtype, self.model)
        if self.device.type == "cpu":  # layers in float32; a GPU's library chooses by itself
            replace_layers(self.model, nn.Conv2d, faster)
        self.embeddings = self.embeddings.to(self.device)
        # The threshold can be applied before NMS: a weaker box never suppresses a stronger one.
        self.model.bbox_head.test_cfg.score_thr = options.score_thr
        self.on_device, self.batch_size = options.on_device, options.batch_size
        kind = DeviceLetterbox if self.on_device else Letterbox
        self.letterbox = kind(model_config.img_scale)
        sizes = (max(self.batch_size // 4, 1), self.batch_size)
        self.compiled_sizes = sizes if options.compile else ()
        self.raw = _compiled(self.model.raw) if options.compile else self.model.raw
        in_threads = options.threads > 1 and not self.on_device
        self._map = ThreadPoolExecutor(options.threads, "letterbox").map if in_threads else map

    def __call__(
        self,
        images: Sequence[Image],
        texts: Tensor,
        stage: str = "detect",
        run: Callable[..., Iterable] = map,
    ) -> list[Detections]:
        """Return per image (H, W, 3) uint8 BGR the boxes of texts with embeddings (1, N, 512).

        `stage` names the network's share of the time in `clock`; the others are "resize", "copy"
        and "nms". `run` is like `map`, and may do several batches at the same time.
        """

        def find(batch: Sequence[Image]) -> list[Detections]:
            with torch.inference_mode(), own_precision(self.device.type, self.dtype):
                return self._find(batch, texts, stage)

        return list(chain.from_iterable(run(find, batched(images, self.batch_size))))

    def _find(self, images: Sequence[Image], texts: Tensor, stage: str) -> list[Detections]:
        """Return the boxes of a batch."""
        with self.clock.stage("resize"):
            if self.on_device:
                batch, metas = self.letterbox.batch(self._filled(images))
            else:
                prepared, metas = zip(*self._map(self.letterbox, images), strict=True)
        if not self.on_device:
            with self.clock.stage("copy"):
                batch = self.batch(prepared)
        with self.clock.stage(stage):
            outs = self.raw(batch, texts)
        outs = [[level[: len(images)] for level in levels] for levels in outs]
        metas = metas[: len(images)]
        with self.clock.stage("nms"):
            if self.on_device:
                found = find_boxes(self.model.bbox_head, *outs, metas)
                return [Detections(x[:, :4], x[:, 4], x[:, 5].astype(np.int64)) for x in found]
            if not all(bool(level.isfinite().all()) for level in chain(*outs)):
                raise VideoError(NOT_FINITE)
            # The head stores the number of texts: each thread has its own head of the same tensors.
            head = copy.copy(self.model.bbox_head)
            head.num_classes = texts.shape[1]
            found = head.predict_by_feat(*outs, batch_img_metas=metas, rescale=True)
            return [_to_numpy(boxes) for boxes in found]

    def batch(self, images: Sequence[np.ndarray]) -> Tensor:
        """Return (B, 3, H, W) RGB in 0..1 of letterboxed images (H, W, 3) uint8 BGR."""
        batch = torch.from_numpy(np.stack(self._filled(images)))
        batch = batch.to(self.device, non_blocking=True)
        batch = batch.permute(0, 3, 1, 2).flip(1).float().div_(255)
        return batch.contiguous(memory_format=torch.channels_last)

    def _filled(self, images: Sequence) -> Sequence:
        """With `compile`, repeat the last image up to one of the compiled batch sizes."""
        if not self.compiled_sizes:
            return images
        size = next(size for size in self.compiled_sizes if size >= len(images))
        return [*images, *[images[-1]] * (size - len(images))]

    @torch.inference_mode()
    def compile_all(self, texts: Tensor) -> None:
        """Compile for texts with embeddings (1, N, 512) and all batch sizes: about a minute each.

        Call it in a thread that will run the network, before any other does: else each thread would
        compile for itself, and torch can compile in one thread only.
        """
        with own_precision(self.device.type, self.dtype):
            for size in self.compiled_sizes:
                width, height = self.letterbox.size
                self.raw(self.batch([np.zeros((height, width, 3), np.uint8)] * size), texts)


def _compiled(function):
    # Freezing treats weights as constants and lays them out once.
    return torch.compile(function, dynamic=False, options={"freezing": True})


def _to_numpy(found) -> Detections:
    return Detections(
        found.bboxes.float().cpu().numpy(),
        found.scores.float().cpu().numpy(),
        found.labels.cpu().numpy(),
    )


def _compute_in(dtype: torch.dtype, model: nn.Module) -> None:
    """Let the backbone and neck of `model` compute in a 16-bit `dtype`, or in int8.

    The first convolution and the head stay in float32, with int8 also the first stage: rounding in
    these moves boxes most.
    """
    image_model = model.backbone.image_model
    if dtype == torch.int8:
        for name in image_model.layers[2:]:
            replace_layers(getattr(image_model, name), nn.Conv2d, Int8Conv2d)
        replace_layers(model.neck, nn.Conv2d, Int8Conv2d)
        return
    model.backbone.to(dtype)
    model.neck.to(dtype)
    stem = image_model.stem.float()
    stem.register_forward_hook(lambda module, inputs, output: output.to(dtype))


def _fold(model: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it; return the model.

    The fold is computed in float64 and rounded once: boxes then deviate less.
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
    return model
