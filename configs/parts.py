"""The parts of people that are found and judged: one line in TABLE and a checkpoint add a part."""

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part of people: how it is found and judged."""

    name: str  # of a-z, 0-9 and _; also that of its flag, setting, folder of crops and lists
    text: str  # what the detector is asked for
    threshold: float  # of p(abnormal), as documented
    found_in: str  # "frame": each box is a person; "person": a box in a person's crop


TABLE = (
    Part("human", "human", 0.45, "frame"),
    Part("face", "face", 0.3, "person"),
    Part("hand", "hand", 0.32, "person"),
)
PARTS = tuple(part.name for part in TABLE)

# The parts of the released classifiers; their texts are their names. Every run searches for them.
# It searches for another part only if it judges it: one more text changes the others' boxes.
BASE_PARTS = ("human", "face", "hand")


def used_parts(judged: Container[str] = ()) -> tuple[str, ...]:
    """Return the parts that a run searches for if it judges the parts `judged`."""
    return tuple(name for name in PARTS if name in BASE_PARTS or name in judged)


def other_texts(parts: Container[str]) -> dict[str, dict[str, str]]:
    """Return {"texts": {part: text}} of `parts`, or {} for the released parts and texts."""
    texts = {part.name: part.text for part in TABLE if part.name in parts}
    return {} if texts == dict(zip(BASE_PARTS, BASE_PARTS, strict=True)) else {"texts": texts}
