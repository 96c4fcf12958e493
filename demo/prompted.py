"""What YOLO-World needs to train on several prompt sets; import after `build.register()`."""

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from mmyolo.registry import HOOKS, MODELS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from models.yolo_world.model import YOLOWorldDetector


@MODELS.register_module()
class PromptedPreprocessor(BaseDataPreprocessor):
    """Brings (B, 3, H, W) uint8 BGR to 0..1 RGB, channels last in memory."""

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        inputs = data["inputs"].flip(1).float().div_(255)
        return {**data, "inputs": inputs.contiguous(memory_format=torch.channels_last)}


@MODELS.register_module()
class PromptedDetector(YOLOWorldDetector):
    """YOLO-World whose samples each bring their own prompt set; `precision` fp32 or bf16.

    With `frozen_norm` batch norms keep their statistics in training.
    """

    def __init__(self, *, prompts: int, channels: int, precision: str = "fp32", **detector):
        super().__init__(**detector)
        self.register_buffer("embeddings", torch.zeros(prompts, channels), persistent=False)
        self.precision, self.frozen_norm = precision, False

    def train(self, mode: bool = True):
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def loss(self, batch_inputs: Tensor, batch_data_samples: dict) -> dict:
        """Return YOLOv8's losses.

        `batch_data_samples`: "prompts" (B, N) indices of `embeddings`, "bboxes_labels" (M, 6)
        sample, label (an index of the sample's prompts) and xyxy in pixels, "img_metas".
        """
        text = self.embeddings[batch_data_samples["prompts"]]
        bf16 = self.precision == "bf16"
        with torch.autocast(batch_inputs.device.type, torch.bfloat16, enabled=bf16):
            outs = self.raw(batch_inputs, text)
        outs = [[level.float() for level in kind] for kind in outs]
        self.bbox_head.num_classes = text.shape[1]
        return self.bbox_head.loss_by_feat(
            *outs, batch_data_samples["bboxes_labels"], batch_data_samples["img_metas"]
        )


@HOOKS.register_module()
class PadToAspect(Hook):
    """In the last `epochs`, also trains on pictures padded to their own aspect.

    A batch of one shape is all frames or all crops, whose statistics differ; so batch norms use
    those gathered before, as at scoring.
    """

    def __init__(self, epochs: int):
        self.epochs = epochs

    def before_train_epoch(self, runner) -> None:
        last = runner.epoch >= runner.max_epochs - self.epochs
        runner.train_dataloader.batch_sampler.to_aspect = last
        runner.model.frozen_norm = last


@HOOKS.register_module()
class PlainCheckpoint(Hook):
    """Keeps the message hub's objects out of checkpoints, so that `weights_only` reads them."""

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint.pop("message_hub", None)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint["message_hub"] = runner.message_hub.state_dict()
