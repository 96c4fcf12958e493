"""Settings: yacs defaults, then a YAML file (with BASE), then key-value options."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode as Node

from human_anomaly.configs.parts import PARTS, TABLE
from human_anomaly.configs.values import ConfigError, coerce, short
from human_anomaly.utils import message_of, plain

# Keys of SimMIM's configs that do not exist here: why, or what to use instead.
_GONE = {
    "AMP_OPT_LEVEL": "use --precision",
    "AMP_ENABLE": "use --precision",
    "ENABLE_AMP": "use --precision",
    "LOCAL_RANK": "torchrun sets it",
    "EVAL_MODE": "use --eval",
    "THROUGHPUT_MODE": "use benchmarks/bench_training.py",
    "MODEL.SWIN": "only ViT is built",
    "MODEL.NUM_CLASSES": "the head has one logit",
    "TRAIN.AUTO_RESUME": "running the same command again resumes",
    "TRAIN.LR_SCHEDULER": "the schedule is cosine",
    "TRAIN.OPTIMIZER.MOMENTUM": "the optimiser is AdamW",
    "LOSS": "the loss is binary cross-entropy",
    "DATA.DATASET": "the data set is JSONL",
    "DATA.DATA_PATH": "use --train-path and --val-path",
    "DATA.MASK_PATCH_SIZE": "pre-training is not built",
    "DATA.MASK_RATIO": "pre-training is not built",
}

DEFAULTS = {
    "BASE": [""],  # YAML files to read before this one
    "TAG": "default",
    "OUTPUT": "",
    "PRETRAINED": "",
    "SEED": 0,
    "PRINT_FREQ": 10,  # in steps
    "SAVE_FREQ": 5,  # in epochs
    "DATA": {
        "BATCH_SIZE": 128,  # per process
        "TRAIN_PATH": "",
        "VAL_PATH": "",
        "IMAGE_ROOT": "",  # empty: all_images/, the part's folder, or the JSONL's own
        "PART": "",  # one of configs/parts.py; empty: from the JSONL's name
        "IMG_SIZE": 224,
        "INTERPOLATION": "bicubic",
        "PIN_MEMORY": True,
        "NUM_WORKERS": 8,
        "ABNORMAL_LABEL": "auto",  # auto, 0 or 1
    },
    "MODEL": {
        "TYPE": "vit",
        "NAME": "simmim_finetune",
        "RESUME": "",
        "DROP_RATE": 0.0,
        "DROP_PATH_RATE": 0.1,
        "LABEL_SMOOTHING": 0.1,
        # Width of the head's hidden layer. n makes the head an MLP (Linear, GELU, Linear), as the
        # detector is described; 0 makes it one linear layer, as in the released weights.
        "HEAD_HIDDEN": 0,
        "ABNORMAL_INDEX": 0,  # which logit of a two-logit file is abnormal
        "VIT": {
            "PATCH_SIZE": 16,
            # How an image becomes patch tokens. False: one linear layer per patch, as in a plain
            # ViT. True: 3x3 convolutions and poolings (arXiv 2106.14881), which learn from a few
            # thousand images without pre-training, as the demo's weights did.
            "CONV_STEM": False,
            "EMBED_DIM": 768,
            "DEPTH": 12,
            "NUM_HEADS": 12,
            "MLP_RATIO": 4.0,
            "QKV_BIAS": True,
            "INIT_VALUES": 0.1,
            "USE_APE": False,
            "USE_RPB": True,
            "USE_SHARED_RPB": False,
            "USE_MEAN_POOLING": True,
        },
    },
    "TRAIN": {
        "EPOCHS": 30,
        "WARMUP_EPOCHS": 3,
        "BASE_LR": 1.25e-3,  # all three rates are for 128 images a step, and are scaled with them
        "WARMUP_LR": 2.5e-7,
        "MIN_LR": 2.5e-7,
        "WEIGHT_DECAY": 0.05,
        "LAYER_DECAY": 0.65,
        "CLIP_GRAD": 5.0,
        "ACCUMULATION_STEPS": 1,
        "USE_CHECKPOINT": False,
        "PRECISION": "fp32",  # fp32, tf32 or bf16
        "COMPILE": False,
        "OPTIMIZER": {"NAME": "adamw", "EPS": 1e-8, "BETAS": (0.9, 0.999)},
    },
    "AUG": {
        # The least share of a training image's area that a random crop of it keeps. 0: no random
        # crop and no flip, but the resize and centre crop of evaluation.
        "MIN_CROP": 0.08,
        "COLOR_JITTER": 0.4,
        "AUTO_AUGMENT": "rand-m9-mstd0.5-inc1",
        "REPROB": 0.25,
        "REMODE": "pixel",
        "RECOUNT": 1,
        "MIXUP": 0.8,
        "CUTMIX": 1.0,
        "MIXUP_PROB": 1.0,
        "MIXUP_SWITCH_PROB": 0.5,
        "MIXUP_MODE": "batch",
    },
    "VIDEO": {
        # original: the pixels that the released weights were made and measured with, which take
        # each file for BT.601. tagged: the colour matrix and range that the file names.
        "COLOURS": "original",
    },
    "TEST": {
        "CROP": True,  # resize to 256/224 of the input size, then cut its centre
        "CHANNELS": "rgb",  # rgb or bgr: the channel order in which classifiers get a frame's crops
    },
    "DETECTOR": {
        "SCORE_THR": 0.1,
        "KEEP_PADDING_CLASS": True,  # boxes of the first pass's " " class count as people
    },
    "SCORE": {
        "THRESHOLDS": {part.name.upper(): part.threshold for part in TABLE},
        "NO_PERSON": None,  # the score of a video without people: null or a number
    },
}


def _set(config: Node, key: str, value) -> None:
    """Set one dotted `key`; raises ConfigError for an unknown one."""
    for gone, why in _GONE.items():
        if key == gone or key.startswith(gone + "."):
            raise ConfigError(f"{key}: this setting has no effect here ({why}); remove it")
    node, *path = config, *key.split(".")
    for name in path[:-1]:
        node = node.get(name)
        if not isinstance(node, Node):
            raise ConfigError(f"{key}: no such setting")
    if path[-1] not in node:
        raise ConfigError(f"{key}: no such setting")
    default = node[path[-1]]
    if isinstance(default, Node):
        raise ConfigError(f"{key}: expected a group of settings, got {short(value)}")
    node[path[-1]] = coerce(key, value, default)


def flatten(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted key, value) of a tree of dicts; empty dicts yield nothing."""
    for name, value in tree.items():
        key = plain(f"{prefix}{name}")
        if prefix.count(".") > 3:  # deeper than any setting, or a YAML group that holds itself
            raise ConfigError(f"{key[:80]}: no such setting")
        if isinstance(value, Mapping):
            yield from flatten(value, key + ".")
        else:
            yield key, value


def _merge_file(config: Node, path: Path, seen: tuple[Path, ...] = ()) -> None:
    """Set what the YAML at `path` and its BASE files say; `seen` are the files that led to it."""
    try:
        path = path.resolve()
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--cfg: cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or a NUL in the path
        raise ConfigError(f"--cfg: cannot read {str(path)!r}: {error}") from error
    if path in seen:
        raise ConfigError(f"{path}: BASE leads back to this file")
    tree = _parse_yaml(text, f"--cfg: {path}")
    if not isinstance(tree, dict):
        raise ConfigError(f"--cfg: {path}: expected keys and values, got {type(tree).__name__}")
    bases = tree.pop("BASE", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path.name}: BASE: expected names of YAML files, got {short(bases)}")
    for base in filter(None, bases):
        _merge_file(config, path.parent / base, (*seen, path))
    try:
        for key, value in flatten(tree):
            _set(config, key, value)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def _parse_yaml(text: str, place: str):
    """Return the YAML value of `text`; any error, also of a number or date in it, is one line."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        reason = message_of(error) or type(error).__name__
        raise ConfigError(f"{place}: not YAML: {reason[:300]}") from error


def get_config(
    path: str | Path | None = None,
    opts: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> Node:
    """Return the frozen settings: defaults, the YAML at `path`, `opts` (KEY VALUE ...), `flags`.

    `opts` are read as YAML; `flags` holds values by key. Raises ConfigError that names the key (or
    file) that is unknown, of the wrong type or out of range.
    """
    config = Node(DEFAULTS)
    if path is not None:
        _merge_file(config, Path(path))
    if len(opts) % 2:
        raise ConfigError(f"--opts: expected KEY VALUE pairs, got {len(opts)} words")
    for key, text in zip(opts[::2], opts[1::2], strict=True):
        key = plain(key)
        if key == "BASE":
            raise ConfigError("--opts: BASE: only a YAML file can name others; use --cfg")
        value = _parse_yaml(text, f"--opts: {key}")
        try:
            _set(config, key, value)
        except ConfigError as error:
            raise ConfigError(f"--opts: {error}") from error
    for key, value in (flags or {}).items():
        _set(config, key, value)
    for key, divisor in (("DATA.IMG_SIZE", "PATCH_SIZE"), ("MODEL.VIT.EMBED_DIM", "NUM_HEADS")):
        if dict(flatten(config))[key] % config.MODEL.VIT[divisor]:
            raise ConfigError(f"{key}: expected a multiple of MODEL.VIT.{divisor}")
    config.freeze()
    return config


def differences(config: Node, other: Node | None = None) -> dict[str, tuple]:
    """Return {key: (other's value, value)} where `config` differs from `other` (the defaults)."""
    before = dict(flatten(DEFAULTS if other is None else other))
    return {k: (before[k], v) for k, v in flatten(config) if before[k] != v}


def thresholds(config: Node) -> dict[str, float]:
    """Return each part's threshold: a crop is abnormal if its p is above it."""
    return {part: config.SCORE.THRESHOLDS[part.upper()] for part in PARTS}
