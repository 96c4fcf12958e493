"""Settings: yacs defaults, then a YAML file (with BASE), then key-value options."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode as Node

PARTS = ("human", "face", "hand")

# Keys of the original family of configs that have no meaning here, and what to do instead.
_GONE = {
    "AMP_OPT_LEVEL": "use --precision",
    "AMP_ENABLE": "use --precision",
    "ENABLE_AMP": "use --precision",
    "LOCAL_RANK": "torchrun sets it",
    "EVAL_MODE": "use --eval",
    "THROUGHPUT_MODE": "use tests/benchmarks/bench_training.py",
    "MODEL.SWIN": "only ViT is built",
    "MODEL.NUM_CLASSES": "the head has one logit",
    "TRAIN.AUTO_RESUME": "running the same command again resumes",
    "TRAIN.LR_SCHEDULER": "the schedule is cosine",
    "TRAIN.OPTIMIZER.MOMENTUM": "the optimiser is AdamW",
    "DATA.DATASET": "the data set is JSONL",
    "DATA.DATA_PATH": "use --train-path and --val-path",
    "DATA.MASK_PATCH_SIZE": "pre-training is not built",
    "DATA.MASK_RATIO": "pre-training is not built",
}


class ConfigError(ValueError):
    """A setting that does not exist or has the wrong type; the message names the key."""


def _defaults() -> Node:
    c = Node()
    c.BASE = [""]
    c.TAG = "default"
    c.OUTPUT = ""
    c.PRETRAINED = ""
    c.SEED = 0
    c.PRINT_FREQ = 10
    c.SAVE_FREQ = 5

    c.DATA = Node()
    c.DATA.BATCH_SIZE = 128  # per process
    c.DATA.TRAIN_PATH = ""
    c.DATA.VAL_PATH = ""
    c.DATA.IMAGE_ROOT = ""  # empty: all_images/, the part's folder, or the JSONL's own
    c.DATA.PART = ""  # human, face, hand; empty: from the JSONL's name
    c.DATA.IMG_SIZE = 224
    c.DATA.INTERPOLATION = "bicubic"
    c.DATA.PIN_MEMORY = True
    c.DATA.NUM_WORKERS = 8
    c.DATA.ABNORMAL_LABEL = "auto"  # auto, 0 or 1

    c.MODEL = Node()
    c.MODEL.TYPE = "vit"
    c.MODEL.NAME = "simmim_finetune"
    c.MODEL.RESUME = ""
    c.MODEL.DROP_RATE = 0.0
    c.MODEL.DROP_PATH_RATE = 0.1
    c.MODEL.LABEL_SMOOTHING = 0.1
    c.MODEL.HEAD_HIDDEN = 0  # 0: one linear layer; n: an MLP with one hidden layer of n
    c.MODEL.ABNORMAL_INDEX = 0  # which logit of a two-logit file is abnormal
    c.MODEL.VIT = Node()
    c.MODEL.VIT.PATCH_SIZE = 16
    c.MODEL.VIT.CONV_STEM = False  # cut patches by 3x3 convolutions: learns from far less data
    c.MODEL.VIT.EMBED_DIM = 768
    c.MODEL.VIT.DEPTH = 12
    c.MODEL.VIT.NUM_HEADS = 12
    c.MODEL.VIT.MLP_RATIO = 4.0
    c.MODEL.VIT.QKV_BIAS = True
    c.MODEL.VIT.INIT_VALUES = 0.1
    c.MODEL.VIT.USE_APE = False
    c.MODEL.VIT.USE_RPB = True
    c.MODEL.VIT.USE_SHARED_RPB = False
    c.MODEL.VIT.USE_MEAN_POOLING = True

    c.TRAIN = Node()
    c.TRAIN.EPOCHS = 30
    c.TRAIN.WARMUP_EPOCHS = 3
    c.TRAIN.BASE_LR = 1.25e-3  # for 128 images a step; scaled with the global batch
    c.TRAIN.WARMUP_LR = 2.5e-7
    c.TRAIN.MIN_LR = 2.5e-7
    c.TRAIN.WEIGHT_DECAY = 0.05
    c.TRAIN.LAYER_DECAY = 0.65
    c.TRAIN.CLIP_GRAD = 5.0
    c.TRAIN.ACCUMULATION_STEPS = 1
    c.TRAIN.USE_CHECKPOINT = False
    c.TRAIN.PRECISION = "fp32"  # fp32, tf32 or bf16
    c.TRAIN.COMPILE = False
    c.TRAIN.OPTIMIZER = Node()
    c.TRAIN.OPTIMIZER.NAME = "adamw"
    c.TRAIN.OPTIMIZER.EPS = 1e-8
    c.TRAIN.OPTIMIZER.BETAS = (0.9, 0.999)

    c.LOSS = Node()
    c.LOSS.FOCAL = False
    c.LOSS.FOCAL_ALPHA = 0.25
    c.LOSS.FOCAL_GAMMA = 2.0

    c.AUG = Node()
    c.AUG.MIN_CROP = 0.08  # least share of the area that a random crop keeps; 0: centre, no flip
    c.AUG.COLOR_JITTER = 0.4
    c.AUG.AUTO_AUGMENT = "rand-m9-mstd0.5-inc1"
    c.AUG.REPROB = 0.25
    c.AUG.REMODE = "pixel"
    c.AUG.RECOUNT = 1
    c.AUG.MIXUP = 0.8
    c.AUG.CUTMIX = 1.0
    c.AUG.MIXUP_PROB = 1.0
    c.AUG.MIXUP_SWITCH_PROB = 0.5
    c.AUG.MIXUP_MODE = "batch"

    c.TEST = Node()
    c.TEST.CROP = True  # resize to 256/224 of the input size, then cut its centre
    c.TEST.CHANNELS = "rgb"  # rgb or bgr: the channel order that the classifiers are fed

    c.DETECTOR = Node()
    c.DETECTOR.SCORE_THR = 0.1
    c.DETECTOR.KEEP_PADDING_CLASS = True  # boxes of the first pass's " " class count as people

    c.SCORE = Node()
    c.SCORE.THRESHOLDS = Node()
    c.SCORE.THRESHOLDS.HUMAN = 0.45
    c.SCORE.THRESHOLDS.FACE = 0.3
    c.SCORE.THRESHOLDS.HAND = 0.32
    c.SCORE.NO_PERSON = None  # the score of a video without people: null, or a number
    return c


_CHOICES = {
    "DATA.ABNORMAL_LABEL": ("auto", "0", "1"),
    "DATA.INTERPOLATION": ("bicubic", "bilinear"),
    "DATA.PART": ("", *PARTS),
    "TRAIN.PRECISION": ("fp32", "tf32", "bf16"),
    "AUG.REMODE": ("const", "rand", "pixel"),
    "AUG.MIXUP_MODE": ("batch", "pair", "elem"),
    "MODEL.TYPE": ("vit",),
    "MODEL.NAME": ("simmim_finetune",),
    "MODEL.ABNORMAL_INDEX": (0, 1),
    "TRAIN.OPTIMIZER.NAME": ("adamw",),
    "TEST.CHANNELS": ("rgb", "bgr"),
}

_AT_LEAST = {
    "DATA.BATCH_SIZE": 1,
    "DATA.NUM_WORKERS": 0,
    "DATA.IMG_SIZE": 1,
    "TRAIN.EPOCHS": 1,
    "TRAIN.WARMUP_EPOCHS": 0,
    "TRAIN.ACCUMULATION_STEPS": 1,
    "PRINT_FREQ": 1,
    "SAVE_FREQ": 1,
    "SEED": 0,
}


def _coerce(key: str, value, default):
    """Return `value` as the type of `default`, or raise ConfigError naming `key`."""
    expected = type(default).__name__
    if key == "DATA.ABNORMAL_LABEL":
        value = str(value)
    elif key == "SCORE.NO_PERSON":
        expected = "null or a number"
        if value is not None and not _is_number(value):
            raise ConfigError(f"{key}: expected {expected}, got {value!r}")
        value = None if value is None else float(value)
    elif isinstance(default, float):
        try:  # YAML reads 1e-3 as a string, and 0 as an int
            value = float(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError):
            value = None
        if value is None:
            raise ConfigError(f"{key}: expected a number")
    elif isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        value = type(default)(value)
    if key != "SCORE.NO_PERSON" and type(value) is not type(default):
        raise ConfigError(f"{key}: expected {expected}, got {value!r}")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise ConfigError(f"{key}: expected one of {_CHOICES[key]}, got {value!r}")
    if key in _AT_LEAST and value < _AT_LEAST[key]:
        raise ConfigError(f"{key}: expected at least {_AT_LEAST[key]}, got {value!r}")
    return value


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _set(config: Node, key: str, value) -> None:
    """Set one dotted `key`; an unknown or meaningless one raises ConfigError."""
    for gone, why in _GONE.items():
        if key == gone or key.startswith(gone + "."):
            raise ConfigError(f"{key}: this setting means nothing here ({why}); remove it")
    node, *path = config, *key.split(".")
    for name in path[:-1]:
        node = node.get(name)
        if not isinstance(node, Node):
            raise ConfigError(f"{key}: no such setting")
    if path[-1] not in node:
        raise ConfigError(f"{key}: no such setting")
    default = node[path[-1]]
    if isinstance(default, Node):
        raise ConfigError(f"{key}: expected a group of settings, got {value!r}")
    node[path[-1]] = _coerce(key, value, default)


def _flatten(tree: dict, prefix: str = ""):
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from _flatten(value, key + ".")
        elif not isinstance(value, dict):
            yield key, value


def _merge_file(config: Node, path: Path, seen: tuple[Path, ...] = ()) -> None:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: BASE leads back to this file")
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"--cfg: cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--cfg: {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"--cfg: {path}: expected keys and values, got {type(tree).__name__}")
    bases = tree.pop("BASE", None) or []
    for base in [bases] if isinstance(bases, str) else bases:
        if base:
            _merge_file(config, path.parent / base, (*seen, path))
    for key, value in _flatten(tree):
        try:
            _set(config, key, value)
        except ConfigError as error:
            raise ConfigError(f"{path.name}: {error}") from error


def get_config(
    path: str | Path | None = None,
    opts: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> Node:
    """Return the frozen settings: defaults, the YAML at `path`, `opts` (KEY VALUE ...), `flags`.

    `flags` maps keys to values that are taken as they are, `opts` are read as YAML. Raises
    ConfigError naming the key (or file) that is unknown or of the wrong type.
    """
    config = _defaults()
    if path is not None:
        _merge_file(config, Path(path))
    if len(opts) % 2:
        raise ConfigError(f"--opts: expected KEY VALUE pairs, got {len(opts)} words")
    for key, text in zip(opts[::2], opts[1::2], strict=True):
        value = yaml.safe_load(text) if isinstance(text, str) else text
        try:
            _set(config, key, value)
        except ConfigError as error:
            raise ConfigError(f"--opts: {error}") from error
    for key, value in (flags or {}).items():
        _set(config, key, value)
    config.freeze()
    return config


def differences(config: Node, other: Node | None = None) -> dict[str, tuple]:
    """Return {key: (other's value, value)} where `config` differs from `other` (the defaults)."""
    before = dict(_flatten(_defaults() if other is None else other))
    return {k: (before[k], v) for k, v in _flatten(config) if before[k] != v}


def thresholds(config: Node) -> dict[str, float]:
    """Return each part's threshold: a crop is abnormal when its p is above it."""
    return {part: config.SCORE.THRESHOLDS[part.upper()] for part in PARTS}
