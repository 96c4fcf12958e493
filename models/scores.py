"""The scoring rules: from the rows of a video's frames to its scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from configs.defaults import PARTS

BOOTSTRAP_DRAWS = 1000
MARGIN = 0.05  # a p this close to its threshold says little about the side it is on
SURELY_NORMAL = 0.2  # a median p up to here is far from flagging


def is_abnormal(parts: Iterable[Mapping], thresholds: Mapping[str, float]) -> bool:
    """Return the any-of-three rule: a person is abnormal if one part's p is above its threshold."""
    return any(part["p_abnormal"] > thresholds[part["part"]] for part in parts)


def is_near(part: Mapping, thresholds: Mapping[str, float]) -> bool:
    """Return whether a part's p lies within MARGIN of its threshold."""
    return abs(part["p_abnormal"] - thresholds[part["part"]]) <= MARGIN + 1e-9


def frame_score(people: Sequence[Mapping]) -> float | None:
    """Return the share of normal people in a frame, None without people."""
    if not people:
        return None
    return sum(not person["abnormal"] for person in people) / len(people)


def per_person(rows: Iterable[Mapping]) -> list[dict]:
    """Return the people of a video's frames in the order of their ids.

    Each has "id", "views" (frames it is in; twice in one that two boxes show it in), "normal" (the
    share of normal views) and "soft" (1 - the mean over views of the highest p).
    """
    views: dict[int, list[Mapping]] = {}
    for row in rows:
        for person in row["people"]:
            views.setdefault(person["id"], []).append(person)
    return [
        {
            "id": number,
            "views": len(seen),
            "normal": sum(not view["abnormal"] for view in seen) / len(seen),
            "soft": 1 - float(np.mean([_highest(view) for view in seen])),
        }
        for number, seen in sorted(views.items())
    ]


def why_unreliable(rows: Iterable[Mapping], thresholds: Mapping[str, float]) -> str | None:
    """Return why a video's scores say little, None where they do.

    Either nobody was found, or a part that flags people has most of its p so near its threshold
    that a little noise turns the verdicts.
    """
    people = [person for row in rows for person in row["people"]]
    found: dict[str, list[Mapping]] = {}
    for part in (part for person in people for part in person["parts"]):
        found.setdefault(part["part"], []).append(part)
    for name, parts in found.items():
        median = np.median([part["p_abnormal"] for part in parts])
        near = float(np.mean([is_near(part, thresholds) for part in parts]))
        if is_abnormal(parts, thresholds) and median > SURELY_NORMAL and near > 0.5:
            return f"{name}: {near:.0%} of p are within {MARGIN} of the threshold"
    return None if people else "no people"


def _highest(person: Mapping) -> float:
    return max((part["p_abnormal"] for part in person["parts"]), default=0.0)


class Tally:
    """Sums the frames' rows into the video's scores. "People" counts person views.

    Somebody who is seen in 100 frames is 100 views, but one of the "tracks".
    """

    def __init__(self, no_person: float | None = None, judged: Iterable[str] = PARTS):
        self.no_person = no_person
        self.people: list[int] = []  # per frame
        self.normal: list[int] = []
        self.frame_scores: list[float] = []
        self.highest = 0.0  # sum over people of their highest p
        self.views: dict[int, list[bool]] = {}  # by person: is the view normal?
        self.flagged = dict.fromkeys(judged, 0)  # people that the part flags

    def add(self, row: dict, thresholds: Mapping[str, float]) -> None:
        people = row["people"]
        self.people.append(len(people))
        self.normal.append(sum(not person["abnormal"] for person in people))
        if row["score"] is not None:
            self.frame_scores.append(row["score"])
        for person in people:
            self.views.setdefault(person["id"], []).append(not person["abnormal"])
            parts = person["parts"]
            self.highest += _highest(person)
            for name in {p["part"] for p in parts if p["p_abnormal"] > thresholds[p["part"]]}:
                self.flagged[name] += 1

    def scores(self) -> dict:
        """Return the four scores, the interval of the first and the counts."""
        people, normal = sum(self.people), sum(self.normal)
        clean = sum(p == n for p, n in zip(self.people, self.normal, strict=True))
        some = people > 0
        shares = [sum(views) / len(views) for views in self.views.values()]
        return {
            "video_results": normal / people if some else self.no_person,
            "ci95": self._interval() if some else None,
            "score_frame_mean": float(np.mean(self.frame_scores)) if some else self.no_person,
            "score_clean_frames": clean / len(self.people),
            "score_soft": 1 - self.highest / people if some else self.no_person,
            "score_people": float(np.mean(shares)) if some else self.no_person,
            "frames": len(self.people),
            "people": people,
            "tracks": len(shares),
            "abnormal_people": people - normal,
            "abnormal_by_part": {part: self._flagged_by(part, people) for part in PARTS},
        }

    def _flagged_by(self, part: str, people: int) -> float | None:
        """Return the share of the person views that a part flags, None where it is not judged."""
        return self.flagged[part] / max(people, 1) if part in self.flagged else None

    def _interval(self) -> list[float]:
        """Return the 95% bootstrap interval of the share of normal people, over frames."""
        rng = np.random.default_rng(0)
        people, normal = np.array(self.people, float), np.array(self.normal, float)
        shares = []
        for _ in range(BOOTSTRAP_DRAWS):
            drawn = rng.integers(len(people), size=len(people))
            if total := people[drawn].sum():
                shares.append(normal[drawn].sum() / total)
        return [float(v) for v in np.percentile(shares, [2.5, 97.5])]


@dataclass
class VideoResult:
    """A video's row of scores.json, and its frames' rows of frames.jsonl where they are kept.

    The properties are for rewards. `micro` counts views (video_results), `macro` people, each by
    the share of their normal views (score_people), `soft` moves when no verdict does (score_soft);
    all are None, or SCORE.NO_PERSON, without people.
    """

    summary: dict
    frames: list[dict] = field(default_factory=list)
    thresholds: Mapping[str, float] = field(default_factory=dict, repr=False)

    @property
    def micro(self) -> float | None:
        return self.summary["video_results"]

    @property
    def macro(self) -> float | None:
        return self.summary["score_people"]

    @property
    def soft(self) -> float | None:
        return self.summary["score_soft"]

    @property
    def people(self) -> list[dict]:
        """Return each person's id, views, share of normal ones ("normal") and soft score."""
        return per_person(self.frames)

    @property
    def unreliable(self) -> str | None:
        """Return why the scores say little, None where they do."""
        return why_unreliable(self.frames, self.thresholds)
