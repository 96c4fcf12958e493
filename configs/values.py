"""Which value each setting may have."""

import reprlib

from human_anomaly.configs.parts import PARTS
from human_anomaly.utils import UsageError

DECODER = 2  # what frames are decoded with: 1 was OpenCV, 2 is the rule of data/video.py


class ConfigError(UsageError):
    """A setting that does not exist or has a wrong type or value; the message names the key."""


# Settings whose keys begin so change a video's scores. SCORE.NO_PERSON is not one of them, because
# it concerns the mean over videos.
SCORING_KEYS = (
    "MODEL.VIT.",
    "MODEL.HEAD_HIDDEN",
    "MODEL.ABNORMAL_INDEX",
    "DATA.IMG_SIZE",
    "DATA.INTERPOLATION",
    "TEST.",
    "VIDEO.",
    "DETECTOR.",
    "SCORE.THRESHOLDS.",
)

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
    "MODEL.VIT.USE_MEAN_POOLING": (True,),
    "TRAIN.OPTIMIZER.NAME": ("adamw",),
    "TEST.CHANNELS": ("rgb", "bgr"),
    "VIDEO.COLOURS": ("original", "tagged"),
}

# Least and greatest value. Numbers that are not listed must lie between 0 and 2**31 - 1.
_RANGES = {
    **dict.fromkeys(("PRINT_FREQ", "SAVE_FREQ", "DATA.BATCH_SIZE", "AUG.RECOUNT"), (1, 2**31 - 1)),
    **dict.fromkeys(("TRAIN.EPOCHS", "TRAIN.ACCUMULATION_STEPS"), (1, 2**31 - 1)),
    "DATA.NUM_WORKERS": (0, 1024),
    "DATA.IMG_SIZE": (1, 4096),
    "MODEL.HEAD_HIDDEN": (0, 65536),
    "MODEL.VIT.PATCH_SIZE": (1, 4096),
    "MODEL.VIT.EMBED_DIM": (1, 8192),
    "MODEL.VIT.DEPTH": (1, 256),
    "MODEL.VIT.NUM_HEADS": (1, 256),
    "MODEL.VIT.MLP_RATIO": (0.01, 64),
    **dict.fromkeys(("MODEL.DROP_RATE", "MODEL.DROP_PATH_RATE"), (0, 0.999)),
    **dict.fromkeys(("MODEL.LABEL_SMOOTHING", "AUG.MIN_CROP", "AUG.REPROB"), (0, 1)),
    **dict.fromkeys(("AUG.MIXUP_PROB", "AUG.MIXUP_SWITCH_PROB"), (0, 1)),
    "TRAIN.OPTIMIZER.BETAS": (0, 0.999999),
    **dict.fromkeys(("DETECTOR.SCORE_THR", "SCORE.NO_PERSON"), (0, 1)),
    **{f"SCORE.THRESHOLDS.{part.upper()}": (0, 1) for part in PARTS},
}


def coerce(key: str, value, default):
    """Return `value` as the type of `default`, or raise ConfigError naming `key`."""
    if key == "DATA.ABNORMAL_LABEL":
        value = str(value)
    elif key == "SCORE.NO_PERSON":
        if value is not None and not _is_number(value):
            raise ConfigError(f"{key}: expected null or a number, got {short(value)}")
        default = value = None if value is None else _number(key, value)
    elif isinstance(default, float):
        value = _number(key, value)  # YAML reads 1e-3 as a string, and 0 as an int
    elif isinstance(default, tuple) and isinstance(value, (list, tuple)):
        if len(value) != len(default):
            raise ConfigError(f"{key}: expected {len(default)} numbers, got {short(value)}")
        value = tuple(_number(key, number) for number in value)
    if type(value) is not type(default):
        raise ConfigError(f"{key}: expected {type(default).__name__}, got {short(value)}")
    if value not in (choices := _CHOICES.get(key, (value,))):
        wanted = f"one of {choices}" if len(choices) > 1 else f"{choices[0]}: nothing else is built"
        raise ConfigError(f"{key}: expected {wanted}, got {short(value)}")
    for number in value if isinstance(value, tuple) else [value]:
        _check_range(key, number)
    return value


def _number(key: str, value) -> float:
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"{key}: expected a number, got {short(value)}")


def _check_range(key: str, value) -> None:
    """Raise ConfigError for a number outside the key's range, and for NaN."""
    low, high = _RANGES.get(key, (0, 2**31 - 1))
    if _is_number(value) and not low <= value <= high:
        wanted = f"at least {low}" if high == 2**31 - 1 and value < low else f"{low} to {high}"
        raise ConfigError(f"{key}: expected {wanted}, got {short(value)}")


def short(value) -> str:
    """Return a value as text for an error line, shortened if it is long."""
    return reprlib.repr(value)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
