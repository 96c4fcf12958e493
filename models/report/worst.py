"""The worst parts of a video's people, kept while its frames go by, as pictures for the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from human_anomaly.data.crops import cut
from human_anomaly.data.video import Frame
from human_anomaly.models.report.draw import RED
from human_anomaly.models.scoring.scores import is_flagged
from human_anomaly.utils import atomic_write

WORST = 12
CROP_SIZE, VIEW_WIDTH = 256, 320

Explain = Callable[[str, Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclass
class Suspect:
    """A person's flagged part in the frame where its p is highest.

    `crop` is its square cut from the frame, `view` the whole frame made small (both BGR).
    """

    frame: int
    time: float
    person: int
    part: Mapping
    crop: np.ndarray
    view: np.ndarray

    @property
    def p(self) -> float:
        return self.part["p_abnormal"]


class WorstParts:
    """Keeps a video's flagged parts with the highest p, each part of a person once."""

    def __init__(self, thresholds: Mapping[str, float], most: int = WORST):
        self.thresholds, self.most = thresholds, most
        self.kept: list[Suspect] = []  # highest p first
        self.first: np.ndarray | None = None  # the first frame, made small
        self.sizes: list[tuple[int, int, int]] = []  # (frame, width, height) where they change

    def add(self, frame: Frame, row: Mapping) -> None:
        """Take a frame and its row of frames.jsonl."""
        if self.first is None:
            self.first = _view(frame.image)
        size = frame.image.shape[1::-1]
        if not self.sizes or self.sizes[-1][1:] != size:
            self.sizes.append((row["frame"], *size))
        for person in row["people"]:
            for part in person["parts"]:
                if is_flagged(part, self.thresholds):
                    self._offer(frame, row, person["id"], part)

    def _offer(self, frame: Frame, row: Mapping, person: int, part: Mapping) -> None:
        p = part["p_abnormal"]
        if len(self.kept) == self.most and p <= self.kept[-1].p:
            return
        same = [s for s in self.kept if (s.person, s.part["part"]) == (person, part["part"])]
        if same and same[0].p >= p:
            return
        crop = cut(frame.image, part["square"]).copy()
        view = _view(frame.image, part["bbox"])
        kept = [s for s in self.kept if not same or s is not same[0]]
        kept.append(Suspect(row["frame"], row["time"], person, part, crop, view))
        self.kept = sorted(kept, key=lambda s: (-s.p, s.frame, s.person))[: self.most]

    def save(self, folder: Path, explain: Explain | None) -> dict:
        """Write the pictures into `folder`; return what evidence.json says about them."""
        views = [suspect.view for suspect in self.kept]
        thumb = views[0] if views else self.first
        if thumb is not None:
            _write_jpeg(folder / "thumb.jpg", thumb)
        heats = self._explain(explain) if explain else {}
        rows = []
        for rank, suspect in enumerate(self.kept):
            row = {
                "frame": suspect.frame,
                "time": suspect.time,
                "person": suspect.person,
                **suspect.part,
                "crop": f"{rank}.jpg",
                "view": f"{rank}_view.jpg",
            }
            method = cv2.INTER_AREA if min(suspect.crop.shape[:2]) > CROP_SIZE else cv2.INTER_CUBIC
            shown = cv2.resize(suspect.crop, (CROP_SIZE, CROP_SIZE), interpolation=method)
            _write_jpeg(folder / row["crop"], shown)
            _write_jpeg(folder / row["view"], suspect.view)
            if rank in heats:
                row["heat"] = f"{rank}_heat.jpg"
                _write_jpeg(folder / row["heat"], overlay(shown, heats[rank]))
            rows.append(row)
        return {"sizes": self.sizes, "worst": rows}

    def _explain(self, explain: Explain) -> dict[int, np.ndarray]:
        """Return heatmaps by rank; the crops of one part are explained together."""
        heats = {}
        for part in {s.part["part"] for s in self.kept}:
            ranks = [i for i, s in enumerate(self.kept) if s.part["part"] == part]
            maps = explain(part, [self.kept[i].crop for i in ranks])
            heats.update(zip(ranks, maps, strict=True))
        return heats


def _view(image: np.ndarray, box: Sequence[float] | None = None) -> np.ndarray:
    """Return the frame (H, W, 3) made small, with a red box where `box` (x1, y1, x2, y2) is."""
    height, width = image.shape[:2]
    zoom = VIEW_WIDTH / width
    size = (VIEW_WIDTH, max(1, round(height * zoom)))
    view = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if box is not None:
        x1, y1, x2, y2 = (round(v * zoom) for v in box)
        cv2.rectangle(view, (x1, y1), (x2, y2), RED, 2)
    return view


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return `image` (H, W, 3) BGR greyed under `heat` (h, w) in 0..1, with a ring at its peak."""
    height, width = image.shape[:2]
    heat = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    heat = np.clip(heat, 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    weight = (0.85 * heat**0.8)[..., None]
    mixed = (grey * (1 - weight) + colours * weight).astype(np.uint8)
    y, x = np.unravel_index(int(heat.argmax()), heat.shape)
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.circle(mixed, (int(x), int(y)), width // 20, colour, thickness, cv2.LINE_AA)
    return mixed


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not ok:
        raise ValueError(f"{path}: cannot encode an image of shape {image.shape}")
    with atomic_write(path, "wb") as file:
        file.write(data.tobytes())
