"""Building YOLO-World from a config file, and loading every kind of detector file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from human_anomaly.models.checkpoint import (
    CheckpointError,
    State,
    assign_state,
    pick_state,
    read_checkpoint,
)
from human_anomaly.third_party import mmcv_ext
from human_anomaly.utils import one_line

TEXT_PREFIX = "backbone.text_model.model."


def register() -> None:
    """Register our classes with mmyolo; call it before a model is built or mmyolo is imported."""
    mmcv_ext.install()
    from human_anomaly.models.yolo_world import model, neck  # noqa: F401

    if not DefaultScope.check_instance_created("human_anomaly"):
        DefaultScope.get_instance("human_anomaly", scope_name="mmyolo")


def read_config(path: str | Path) -> Config:
    """Return the YOLO-World config at `path`; raises CheckpointError for any other file."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"--detector_config: no such file: {path}")
    with _errors_of(path):
        config = Config.fromfile(path)
        kind = config.model.type
    if kind != "YOLOWorldDetector":
        raise CheckpointError(
            f"--detector_config: {path}: expected a YOLOWorldDetector, got {kind}"
        )
    return config


@contextmanager
def _errors_of(path: str | Path) -> Iterator[None]:
    """Turn every error of mmengine and of the classes that a config names into a CheckpointError.

    Any kind may come: a config is a program, and its values become arguments of functions.
    """
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"--detector_config: {path}: {one_line(error)}") from error


def build_model(config: Config) -> nn.Module:
    """Return a new detector as `config.model` describes it; the config's data sets are not read."""
    from mmyolo.registry import MODELS

    model = ConfigDict(config.model.to_dict())
    # Under torchrun mmyolo would turn batch norms into synchronised ones, and log it.
    return MODELS.build({**model, "use_syncbn": False})


def split_state(state: State) -> tuple[State, State]:
    """Return the detector's tensors and the text tower's, the latter without their prefix."""
    text = {k.removeprefix(TEXT_PREFIX): v for k, v in state.items() if k.startswith(TEXT_PREFIX)}
    rest = {k: v for k, v in state.items() if not k.startswith(TEXT_PREFIX)}
    return rest, text


def read_vocabulary(content: dict, path: str | Path) -> dict[str, Tensor]:
    """Return {text: embedding (D,)} of a checkpoint that stores a vocabulary, else {}."""
    stored = content.get("vocabulary")
    if stored is None:
        return {}
    try:
        texts, embeddings = list(map(str, stored["texts"])), stored["embeddings"].float()
        if embeddings.ndim != 2 or len(texts) != len(embeddings):
            raise ValueError(f"{tuple(embeddings.shape)} for {len(texts)} texts")
        return dict(zip(texts, embeddings, strict=True))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected one embedding per text as the vocabulary, got {error}"
        ) from error


def load_text_tower(state: State, path: str | Path) -> nn.Module:
    """Return CLIP's text tower with the weights of `state` (official names without prefix)."""
    from human_anomaly.models.yolo_world.text import build_text_tower, convert_text_tower

    tower = build_text_tower()
    assign_state(tower, convert_text_tower(state), path)
    return tower.requires_grad_(False).eval()


def embed(texts: Sequence[str], content: dict, text_state: State, path: str | Path) -> Tensor:
    """Return normalised embeddings (len(texts), 512) of `texts`.

    They come from the vocabulary in `content`, or from the text tower in `text_state`. Raises
    CheckpointError, which names `path`, where the file has neither.
    """
    vocabulary = read_vocabulary(content, path)
    if all(text in vocabulary for text in texts):
        return torch.stack([vocabulary[text] for text in texts])
    if not text_state:
        missing = [t for t in texts if t not in vocabulary]
        raise CheckpointError(f"{path}: holds neither a text tower nor embeddings of {missing}")
    from human_anomaly.models.yolo_world.text import encode_texts

    return encode_texts(load_text_tower(text_state, path), texts)


def load_detector(
    config_path: str | Path, weights: str | Path, texts: Sequence[str]
) -> tuple[nn.Module, Config, Tensor]:
    """Return the detector in evaluation mode on the CPU, its config and its texts' embeddings.

    The embeddings are (len(texts), 512). Takes official files, which hold a text tower, and our
    own, which hold a vocabulary instead. Raises CheckpointError for other files.
    """
    register()
    config = read_config(config_path)
    content = read_checkpoint(weights)
    state, text_state = split_state(pick_state(content, ("state_dict",), weights))
    embeddings = embed(texts, content, text_state, weights)
    with _errors_of(config_path):
        model = build_model(config)
        width = model.bbox_head.head_module.embed_channels
        rules = model.bbox_head.test_cfg
        needed = {"img_scale": config, "multi_label": rules, "nms": rules, "max_per_img": rules}
        for name, place in needed.items():  # else the first frame would raise the error
            getattr(place, name)
    if embeddings.shape[1] != width:
        raise CheckpointError(f"{weights}: expected embeddings of {width} numbers for its texts")
    assign_state(model, state, weights)
    model.data_preprocessor = nn.Identity()  # `Predictor` normalises the images
    return model.requires_grad_(False).eval(), config, embeddings
