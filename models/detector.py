"""People and their faces and hands: two passes of one YOLO-World detector."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights

from data.crops import cut, square_box
from models.yolo_world.build import load_detector, register

PADDING = " "  # the text that pads a prompt set, a class of its own
PEOPLE_TEXTS = ("human", PADDING)
PART_TEXTS = ("face", "hand", PADDING)


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


EMPTY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class PartBox:
    """A part in pixels of the frame: box and square (x1, y1, x2, y2), and the box's score."""

    part: str
    bbox: tuple[float, float, float, float]
    score: float
    square: tuple[int, int, int, int]


@dataclass
class Person:
    """One detected person: the parts that can be judged."""

    parts: list[PartBox] = field(default_factory=list)


@dataclass
class FrameDetections:
    """The people of one frame, and how many crops were degenerate and skipped."""

    people: list[Person]
    skipped: int = 0


class PartDetector:
    """Finds people in frames, then faces and hands in each person's crop.

    `config` and `weights` are YOLO-World's config file and checkpoint. Raises CheckpointError
    where either cannot be used.
    """

    def __init__(
        self,
        config: str | Path,
        weights: str | Path,
        device: str | torch.device = "cpu",
        *,
        score_thr: float = 0.1,
        keep_padding_class: bool = True,
        batch_size: int = 8,
        threads: int = 2,
    ):
        texts = (*PEOPLE_TEXTS, *PART_TEXTS)
        model, model_config, embeddings = load_detector(config, weights, texts)
        self.device = torch.device(device)
        self.model = _optimise(model).to(self.device)
        self.people_texts = embeddings[: len(PEOPLE_TEXTS)][None].to(self.device)
        self.part_texts = embeddings[len(PEOPLE_TEXTS) :][None].to(self.device)
        self.keep_padding_class = keep_padding_class
        self.batch_size = batch_size
        # Greedy NMS keeps the same boxes above the threshold whether or not weaker ones run along.
        self.model.bbox_head.test_cfg.score_thr = score_thr
        self.letterbox = Letterbox(model_config.img_scale)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="letterbox")

    def detect(self, frames: Sequence[np.ndarray]) -> list[FrameDetections]:
        """Return per frame (H, W, 3) uint8 BGR its people, their parts and squares."""
        results = [FrameDetections([]) for _ in frames]
        owners: dict[tuple, list[tuple[FrameDetections, Person]]] = {}
        crops: list[np.ndarray] = []
        for i, found in enumerate(self.boxes(frames, self.people_texts)):
            for box, score in self._people(found):
                person = self._person(frames[i], results[i], box, score)
                if person is None:
                    continue
                # The two texts often find the same box: its crop is searched once.
                key = (i, *map(int, box))
                if key not in owners:
                    crop = cut(frames[i], box)
                    if not (crop.size and self.letterbox.fits(crop)):
                        results[i].skipped += 1
                        continue
                    crops.append(crop)
                owners.setdefault(key, []).append((results[i], person))
        found_parts = self.boxes(crops, self.part_texts)
        for (i, x1, y1, *_), parts in zip(owners, found_parts, strict=True):
            for result, person in owners[i, x1, y1, *_]:
                self._add_parts(frames[i], result, person, (x1, y1), parts)
        return results

    def _people(self, detections: Detections) -> list[tuple[np.ndarray, float]]:
        keep = [
            i
            for i, label in enumerate(detections.labels)
            if self.keep_padding_class or PEOPLE_TEXTS[label] != PADDING
        ]
        return [(detections.xyxy[i], float(detections.scores[i])) for i in keep]

    @staticmethod
    def _person(frame, result: FrameDetections, box: np.ndarray, score: float) -> Person | None:
        """Add a person to `result`; a degenerate box is none, and is counted."""
        if not (box[2] > box[0] and box[3] > box[1]):
            result.skipped += 1
            return None
        person = Person()
        result.people.append(person)
        _add(frame, result, person, "human", tuple(map(float, box)), score)
        return person

    @staticmethod
    def _add_parts(frame, result, person: Person, offset, found: Detections) -> None:
        shift = np.array([*offset, *offset], np.float64)
        for label, part in enumerate(PART_TEXTS[:-1]):
            for i in np.flatnonzero(found.labels == label):
                box = tuple(found.xyxy[i].astype(np.float64) + shift)
                _add(frame, result, person, part, box, float(found.scores[i]))

    @torch.inference_mode()
    def boxes(self, images: Sequence[np.ndarray], texts: torch.Tensor) -> list[Detections]:
        """Return the boxes per image (H, W, 3) uint8 BGR for text embeddings (1, N, 512)."""
        results: list[Detections] = []
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            prepared = list(self._pool.map(self.letterbox, chunk))
            batch = torch.from_numpy(np.stack([image for image, _ in prepared]))
            batch = batch.to(self.device).permute(0, 3, 1, 2).flip(1).float().div_(255)
            batch = batch.contiguous(memory_format=torch.channels_last)
            metas = [meta for _, meta in prepared]
            results += map(_to_numpy, self.model.predict_boxes(batch, texts, metas))
        return results


def _add(frame, result, person: Person, part: str, box, score: float) -> None:
    """Add one part to `person` where a square fits, else count it."""
    height, width = frame.shape[:2]
    square = square_box(box, width, height)
    if square is None:
        result.skipped += 1
    else:
        person.parts.append(PartBox(part, box, score, square))


def _to_numpy(found) -> Detections:
    return Detections(
        found.bboxes.float().cpu().numpy(),
        found.scores.float().cpu().numpy(),
        found.labels.cpu().numpy(),
    )


def _optimise(model: torch.nn.Module) -> torch.nn.Module:
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
            module.conv.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
            module.conv.bias = torch.nn.Parameter(bias.float(), requires_grad=False)
            setattr(module, module.norm_name, torch.nn.Identity())
    return model.to(memory_format=torch.channels_last)


class Letterbox:
    """Resizes a BGR image into `size` = (width, height), keeping its aspect, and pads with 114."""

    def __init__(self, size: tuple[int, int]):
        register()
        from mmyolo.datasets.transforms import LetterResize, YOLOv5KeepRatioResize

        self.size = tuple(size)
        self._resize = YOLOv5KeepRatioResize(scale=self.size)
        self._pad = LetterResize(scale=self.size, allow_scale_up=False, pad_val={"img": 114})

    def fits(self, image: np.ndarray) -> bool:
        """Return whether both sides keep at least a pixel."""
        height, width = image.shape[:2]
        ratio = min(max(self.size) / max(height, width), min(self.size) / min(height, width))
        return int(height * ratio) > 0 and int(width * ratio) > 0

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict]:
        """Return the padded image (H, W, 3) uint8 BGR and what is needed to map boxes back."""
        results = {"img": image, "img_shape": image.shape[:2]}
        results = self._pad(self._resize(results))
        meta = {
            "ori_shape": image.shape[:2],
            "scale_factor": results["scale_factor"],
            "pad_param": results["pad_param"],
        }
        return results["img"], meta
