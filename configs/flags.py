"""The flags that several commands share."""

import argparse
from collections.abc import Callable

from human_anomaly.configs.parts import PARTS
from human_anomaly.configs.places import shipped


def at_least(lowest: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number, `lowest` or more."""

    def number(text: str) -> int:
        if int(text) < lowest:
            raise argparse.ArgumentTypeError(f"expected at least {lowest}, got {text}")
        return int(text)

    return number


def _frame_rate(text: str) -> float:
    if not 0 < float(text) < 1000:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1000, got {text}")
    return float(text)


def add_weight_flags(add: Callable) -> None:
    """Add the flags that name the files to score with; `add` is a parser's `add_argument`."""
    text = "YAML with the classifiers' shape and the scoring rules"
    add("--cfg", type=shipped, metavar="FILE", help=text)
    add_detector_flags(add)
    add_model_flags(add)
    add("--release", action="store_true", help="use the released weights and their settings")


def given_files(args: argparse.Namespace) -> dict:
    """Return the flags of `add_weight_flags` as arguments of `choose_weights`."""
    names = ("cfg", "detector_config", "detector_weights", "release")
    return {name: getattr(args, name) for name in names} | {"models": given_models(args)}


def add_detector_flags(add: Callable, *, required: bool = False) -> None:
    """Add the flags that name the detector's files; `add` is a parser's `add_argument`."""
    file = {"type": shipped, "metavar": "FILE", "required": required}
    add("--detector-config", "--detector_config", **file, help="YOLO-World's config")
    add("--detector-weights", "--detector_weights", **file, help="YOLO-World's checkpoint")


def add_model_flags(add: Callable) -> None:
    """Add the flags that name each part's checkpoint; `add` is a parser's `add_argument`."""
    file = {"type": shipped, "metavar": "FILE"}
    for part in PARTS:
        add(f"--{part}-model", f"--{part}_model", **file, help=f"checkpoint for the {part}")


def given_models(args: argparse.Namespace) -> dict[str, str]:
    """Return {part: checkpoint} of the parts whose flag is given."""
    return {part: file for part in PARTS if (file := getattr(args, f"{part}_model"))}


def add_shared_flags(add: Callable, verb: str) -> None:
    """Add flags by `add`, a parser's `add_argument`; `verb` says what is done with a frame."""
    text = f"{verb} every n-th frame (1)"
    add("--frame-stride", dest="stride", type=at_least(1), default=1, help=text)
    add("--fps", type=_frame_rate, default=25.0, help="frame rate of image folders (25)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    text = f"{verb} in a Ray cluster's actors"
    add("--ray", nargs="?", const="local", metavar="ADDRESS", help=text)
    text = "CPU cores of each Ray actor (1; with GPUs, each GPU's share of its machine)"
    add("--actor-cores", dest="cores", type=at_least(1), metavar="N", help=text)
