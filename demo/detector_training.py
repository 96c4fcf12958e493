"""Training YOLO-World on fixed prompts, with YOLOv8's losses, through mmengine's Runner.

A batch mixes samples of several prompt sets, and each sample is compared with the texts of its own
set only. The neck depends on the texts, so each kind of picture is trained with the texts that are
searched for in it at scoring.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from human_anomaly.demo.detector_data import ShapeBatches
from human_anomaly.models.yolo_world.build import build_model, register
from human_anomaly.tools.export_vocabulary import with_vocabulary
from human_anomaly.utils import UsageError, write_json


def fixed_embeddings(count: int, channels: int, seed: int) -> Tensor:
    """Return orthonormal embeddings (count, channels), the same for the same seed.

    They are rounded to float16, because checkpoints store them in float16.
    """
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(channels, count, generator=generator))
    return q.T.contiguous().half().float()


def prompt_table(
    texts: Sequence[str], prompt_sets: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Return, for each prompt set, the indices of its prompts in `texts`, all of one length.

    Shorter sets repeat their last prompt. That changes neither the neck, which takes a maximum over
    texts, nor any box.
    """
    longest = max(map(len, prompt_sets.values()))
    table = {}
    for name, prompts in prompt_sets.items():
        indices = [texts.index(text) for text in prompts]
        table[name] = indices + indices[-1:] * (longest - len(indices))
    return table


def collate(table: Mapping[str, Sequence[int]], batch: Sequence[dict]) -> dict:
    """Stack items of `DrawnParts` into a batch for `PromptedDetector`, by a `prompt_table`."""
    inputs = torch.stack([sample["inputs"] for sample in batch])
    boxes = [
        torch.nn.functional.pad(sample["boxes_labels"], (1, 0), value=float(i))
        for i, sample in enumerate(batch)
    ]
    samples = {
        "bboxes_labels": torch.cat(boxes),
        "prompts": torch.tensor([table[sample["kind"]] for sample in batch]),
        "img_metas": [{"batch_input_shape": tuple(inputs.shape[2:])}] * len(batch),
    }
    return {"inputs": inputs, "data_samples": samples}


class Preprocessor(BaseDataPreprocessor):
    """Converts (B, 3, H, W) uint8 BGR to 0..1 RGB, channels last in memory."""

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        inputs = data["inputs"].flip(1).float().div_(255)
        return {**data, "inputs": inputs.contiguous(memory_format=torch.channels_last)}


class PromptedDetector(BaseModel):
    """Wraps a YOLO-World so that each sample of a batch is trained with its own prompt set.

    `precision` is fp32 or bf16. With `frozen_norm`, batch norms keep their statistics.
    """

    def __init__(self, *, config: Config, precision: str):
        super().__init__(data_preprocessor=Preprocessor())
        self.detector = build_model(config)
        self.precision, self.frozen_norm = precision, False
        embeddings = fixed_embeddings(len(config.texts), config.text_channels, config.seed)
        self.register_buffer("embeddings", embeddings, persistent=False)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, inputs: Tensor, data_samples: dict, mode: str = "loss") -> dict:
        """Return YOLOv8's losses for images (B, 3, H, W) in 0..1 RGB.

        `data_samples`: "prompts" (B, N), indices of the config's texts; "bboxes_labels" (M, 6),
        each row the sample's index, the label's index in the sample's prompts, and xyxy in pixels;
        and "img_metas".
        """
        head, text = self.detector.bbox_head, self.embeddings[data_samples["prompts"]]
        bf16 = self.precision == "bf16"
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
            outs = self.detector.raw(inputs, text)
        outs = [[level.float() for level in kind] for kind in outs]
        head.num_classes = text.shape[1]
        return head.loss_by_feat(*outs, data_samples["bboxes_labels"], data_samples["img_metas"])


class PadToAspect(Hook):
    """In the last `epochs`, half of the pictures are padded to their own aspect, not to a square.

    A batch of one shape holds only frames or only crops, whose statistics differ. So in these
    epochs batch norms use the statistics gathered before, as at scoring.
    """

    def __init__(self, epochs: int):
        self.epochs = epochs

    def before_train_epoch(self, runner) -> None:
        last = runner.epoch >= runner.max_epochs - self.epochs
        runner.train_dataloader.batch_sampler.to_aspect = last
        runner.model.frozen_norm = last


class PlainCheckpoint(Hook):
    """Keeps the message hub's objects out of checkpoints, so that `weights_only` can load them."""

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint.pop("message_hub", None)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint["message_hub"] = runner.message_hub.state_dict()


def schedule(steps: int, warmup: int) -> list[dict]:
    """Return mmengine's schedulers: a linear warm-up of `warmup` steps, then a cosine."""
    cosine = {"begin": warmup, "T_max": steps - warmup, "eta_min_ratio": 0.01}
    return [
        {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "end": warmup},
        {"type": "CosineAnnealingLR", "by_epoch": False, **cosine},
    ]


def build_runner(config: Config, dataset: Dataset, work_dir: Path, *, workers: int = 1):
    """Return mmengine's Runner that trains `config`'s detector on `dataset`.

    It resumes from the newest checkpoint in `work_dir`.
    """
    from mmengine.runner import Runner

    register()
    batch = min(config.batch_size, len(dataset))
    steps = len(dataset) // batch * config.max_epochs
    loader = DataLoader(
        dataset,
        batch_sampler=ShapeBatches(dataset, batch),
        num_workers=workers,
        collate_fn=partial(collate, prompt_table(config.texts, config.prompt_sets)),
    )
    return Runner(
        model={"type": PromptedDetector, "config": config, "precision": config.precision},
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": config.max_epochs},
        optim_wrapper={
            "optimizer": config.optimizer.to_dict(),
            "paramwise_cfg": config.paramwise_cfg.to_dict(),
            "clip_grad": {"max_norm": 10.0},
        },
        param_scheduler=schedule(steps, min(config.warmup_iters, max(1, steps // 5))),
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 50},
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 1},
            "sampler_seed": None,  # ShapeBatches draws from torch's generator
        },
        custom_hooks=[PlainCheckpoint(), PadToAspect(config.aspect_epochs)],
        randomness={"seed": config.seed},
        resume=True,
        default_scope="mmyolo",
        experiment_name="detector",
    )


def check_plan(folder: Path, plan: dict) -> None:
    """Write `plan` into `folder`; raises UsageError if a run with another plan lies there.

    A resumed schedule keeps its old length, so a run cannot go on with other settings.
    """
    note = folder / "plan.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != plan:
        raise UsageError(f"{folder}: holds a detector run with other settings; remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, plan)


def train(config: Config, dataset: Dataset, work_dir: Path, *, workers: int = 1) -> dict:
    """Train in `work_dir`, or resume there; return the content of the detector's file.

    Its keys are those of all our detector files: "meta", "state_dict" and "vocabulary".
    """
    check_plan(work_dir, {"samples": len(dataset), "config": config.pretty_text})
    model = build_runner(config, dataset, work_dir, workers=workers).train()
    return with_vocabulary(model.detector.state_dict(), config.texts, model.embeddings)
