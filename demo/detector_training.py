"""Training YOLO-World on fixed prompts, with YOLOv8's losses, through mmengine's Runner.

A batch mixes samples of several prompt sets, each scored against the texts of its own set: the
neck looks at the texts, so training must show each kind of picture with the texts of scoring.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from demo.detector_data import ShapeBatches
from models.yolo_world.build import register
from utils import UsageError, write_json


def fixed_embeddings(count: int, channels: int, seed: int = 0) -> Tensor:
    """Return `count` orthonormal embeddings (count, channels), the same for the same seed.

    They are rounded to float16, in which they are stored.
    """
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(channels, count, generator=generator))
    return q.T.contiguous().half().float()


def prompt_table(
    texts: Sequence[str], prompt_sets: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Return per set the indices of its prompts in `texts`, all filled up to the same length.

    A repeated last prompt changes neither the neck (a maximum over texts) nor any box.
    """
    longest = max(map(len, prompt_sets.values()))
    table = {}
    for name, prompts in prompt_sets.items():
        filled = [*prompts, *[prompts[-1]] * (longest - len(prompts))]
        table[name] = [texts.index(text) for text in filled]
    return table


class Collate:
    """Stacks samples {"inputs", "boxes_labels", "kind"} into what `PromptedDetector` takes."""

    def __init__(self, table: Mapping[str, Sequence[int]]):
        self.table = dict(table)

    def __call__(self, batch: Sequence[dict]) -> dict:
        inputs = torch.stack([sample["inputs"] for sample in batch])
        boxes = [
            torch.cat([torch.full((len(found), 1), float(i)), found], 1)
            for i, found in enumerate(sample["boxes_labels"] for sample in batch)
        ]
        samples = {
            "bboxes_labels": torch.cat(boxes),
            "prompts": torch.tensor([self.table[sample["kind"]] for sample in batch]),
            "img_metas": [{"batch_input_shape": tuple(inputs.shape[2:])}] * len(batch),
        }
        return {"inputs": inputs, "data_samples": samples}


def build_runner(config: Config, dataset: Dataset, work_dir: str | Path, *, workers: int = 1):
    """Return mmengine's Runner that trains `config`'s detector on `dataset`, and resumes."""
    from mmengine.runner import Runner

    register()
    import demo.prompted  # noqa: F401  (registers its classes)

    batch = min(config.batch_size, len(dataset))
    steps = len(dataset) // batch * config.max_epochs
    warmup = min(config.warmup_iters, max(1, steps // 5))
    loader = DataLoader(
        dataset,
        batch_sampler=ShapeBatches(dataset, batch),
        num_workers=workers,
        collate_fn=Collate(prompt_table(config.texts, config.prompt_sets)),
    )
    model = ConfigDict(config.model.to_dict())
    model.update(type="PromptedDetector", precision=config.precision)
    model.update(prompts=len(config.texts), channels=config.text_channels)
    model.data_preprocessor = ConfigDict(type="PromptedPreprocessor")
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": config.max_epochs},
        optim_wrapper={
            "type": "OptimWrapper",
            "optimizer": config.optimizer.to_dict(),
            "paramwise_cfg": config.paramwise_cfg.to_dict(),
            "clip_grad": {"max_norm": 10.0},
        },
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "end": warmup},
            {
                "type": "CosineAnnealingLR",
                "by_epoch": False,
                "begin": warmup,
                "T_max": steps - warmup,
                "eta_min_ratio": 0.01,
            },
        ],
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 50},
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 1},
            "sampler_seed": None,  # ShapeBatches draws from torch's generator
        },
        custom_hooks=[
            {"type": "PlainCheckpoint"},
            {"type": "PadToAspect", "epochs": config.aspect_epochs},
        ],
        randomness={"seed": config.seed},
        resume=True,
        default_scope="mmyolo",
        log_level="INFO",
        experiment_name="detector",
    )
    embeddings = fixed_embeddings(len(config.texts), runner.model.embeddings.shape[1], config.seed)
    runner.model.embeddings.copy_(embeddings)
    return runner


def check_plan(folder: Path, plan: dict) -> None:
    """Write down what `folder` trains; UsageError where it holds a run of another plan.

    A resumed schedule keeps its old length, so going on with other settings would train wrongly.
    """
    note = folder / "plan.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != plan:
        raise UsageError(f"{folder}: holds a detector run with other settings; remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, plan)


def train(config: Config, dataset: Dataset, work_dir: str | Path, *, workers: int = 1) -> dict:
    """Train, or go on training, in `work_dir`; return the checkpoint, ready to be saved.

    The content has the form of our detector files: "meta", "state_dict" and "vocabulary".
    """
    from models.yolo_world.export_vocabulary import with_vocabulary

    check_plan(Path(work_dir), {"samples": len(dataset), "config": config.pretty_text})
    runner = build_runner(config, dataset, work_dir, workers=workers)
    model = runner.train()
    return with_vocabulary(model.state_dict(), config.texts, model.embeddings)
