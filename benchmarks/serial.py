"""The original's way of scoring, for comparison; correct and plain, and never made faster.

Two copies of the detector, one image at a time, the texts encoded for each image, the video
decoded twice, crops resized and judged one by one.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.data.crops import cut, square_box
from human_anomaly.data.transforms import EvalTransform
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.models.checkpoint import pick_state, read_checkpoint
from human_anomaly.models.detector import prompt_set
from human_anomaly.models.device import Stopwatch
from human_anomaly.models.yolo_world.build import load_detector, load_text_tower, split_state
from human_anomaly.models.yolo_world.predictor import Letterbox


class SerialDetector:
    """One copy of YOLO-World as it was trained, with its text tower."""

    def __init__(self, config: Path, weights: Path, texts: tuple[str, ...], device, clock):
        self.model, model_config, _ = load_detector(config, weights, texts)
        self.model.to(device)
        state = split_state(pick_state(read_checkpoint(weights), ("state_dict",), weights))[1]
        self.tower = load_text_tower(state, weights).to(device)
        self.texts, self.device, self.clock = texts, device, clock
        self.letterbox = Letterbox(model_config.img_scale)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, stage: str):
        """Return boxes (N, 4) xyxy and labels (N,) of the image with a score above 0.1."""
        from open_clip.tokenizer import SimpleTokenizer

        with self.clock.stage("resize"):
            pixels, meta = self.letterbox(image)
        with self.clock.stage(stage):
            tokens = SimpleTokenizer()(list(self.texts)).to(self.device)
            texts = torch.nn.functional.normalize(self.tower(tokens), dim=-1)[None]
            batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
            batch = batch.flip(1).float() / 255
            outs = self.model.raw(batch, texts)
            self.model.bbox_head.num_classes = len(self.texts)
            found = self.model.bbox_head.predict_by_feat(*outs, batch_img_metas=[meta])[0]
            keep = found.scores > 0.1
            return found.bboxes[keep].cpu().numpy(), found.labels[keep].cpu().numpy()


class SerialScorer:
    """Scores a video in the original's way."""

    def __init__(self, config_path, weights, classifiers, config, device, clock: Stopwatch):
        people, parts = (tuple(prompt_set(BASE_PARTS, place)) for place in ("frame", "person"))
        self.people = SerialDetector(config_path, weights, people, device, clock)
        self.parts = SerialDetector(config_path, weights, parts, device, clock)
        self.classifiers, self.config, self.device = classifiers, config, device
        self.clock = clock
        self.transform = EvalTransform(size=config.DATA.IMG_SIZE)

    def score(self, path: Path, fix_people, fix_parts) -> list[float]:
        """Return p of every part; the `fix_` functions replace the boxes found in a frame."""
        boxes = []
        for frame in self._frames(path):
            found = fix_people(frame, *self.people(frame, "detect people"))
            for box in found:
                boxes.append((len(boxes), "human", box))
                crop = cut(frame, box)
                for part, inner in fix_parts(crop, *self.parts(crop, "detect parts")):
                    shift = [int(box[0]), int(box[1])] * 2
                    boxes.append((len(boxes), part, np.asarray(inner) + shift))
            boxes.append(None)  # the end of a frame
        return self._classify(path, boxes)

    def _classify(self, path: Path, boxes: list) -> list[float]:
        results, waiting = [], iter(boxes)
        for frame in self._frames(path):
            for _, part, box in iter(lambda: next(waiting), None):
                assert part in BASE_PARTS
                square = square_box(box, frame.shape[1], frame.shape[0])
                with self.clock.stage("resize"):
                    crop = Image.fromarray(np.ascontiguousarray(cut(frame, square)[..., ::-1]))
                    x = self.transform(crop)[None].to(self.device)
                with self.clock.stage("classify"), torch.inference_mode():
                    results.append(self.classifiers[part](x).sigmoid().item())
        return results

    def _frames(self, path: Path):
        frames = iter(FrameReader(Source(path, path.stem)))
        while True:
            with self.clock.stage("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame.image
