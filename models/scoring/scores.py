"""The scoring rules: from the rows of a video's frames to its scores."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from human_anomaly.configs.parts import used_parts

BOOTSTRAP_DRAWS = 1000
MARGIN = 0.05  # a p this close to its threshold makes a verdict uncertain
SURELY_NORMAL = 0.2  # a median p up to here is far from flagging


def is_flagged(part: Mapping, thresholds: Mapping[str, float]) -> bool:
    """Return whether a part's p is above its threshold."""
    return part["p_abnormal"] > thresholds[part["part"]]


def is_abnormal(parts: Iterable[Mapping], thresholds: Mapping[str, float]) -> bool:
    """Return whether a person is abnormal: one flagged part is enough."""
    return any(is_flagged(part, thresholds) for part in parts)


def is_near(part: Mapping, thresholds: Mapping[str, float]) -> bool:
    """Return whether a part's p lies within MARGIN of its threshold."""
    return abs(part["p_abnormal"] - thresholds[part["part"]]) <= MARGIN + 1e-9


def bootstrap(
    count: int, statistic: Callable[[np.ndarray], float], draws: int
) -> tuple[float, float]:
    """Return the 95% bootstrap interval of a statistic of `count` things.

    `statistic` takes the indices (count,) of a draw. A draw for which it returns NaN is left out.
    """
    rng = np.random.default_rng(0)
    values = [statistic(rng.integers(count, size=count)) for _ in range(draws)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def frame_score(people: Sequence[Mapping]) -> float | None:
    """Return the share of normal people, None without people."""
    if not people:
        return None
    return sum(not person["abnormal"] for person in people) / len(people)


def _highest(person: Mapping) -> float:
    return max((part["p_abnormal"] for part in person["parts"]), default=0.0)


class Tally:
    """Sums the frames' rows into the video's scores.

    A view is one person in one frame: somebody who is seen in 100 frames is 100 "views", but one of
    the "tracks". "people" and "abnormal_people" count views, too: older readers expect them.
    """

    def __init__(self, no_person: float | None = None, judged: Iterable[str] = used_parts()):
        self.no_person = no_person
        self.seen: list[int] = []  # views, per frame
        self.normal: list[int] = []
        self.frame_scores: list[float] = []
        self.highest = 0.0  # sum over views of the highest p
        self.views: dict[int, list[bool]] = {}  # by person: is the view normal?
        self.flagged = dict.fromkeys(judged, 0)  # by part: how many views it flags

    def add(self, row: dict, thresholds: Mapping[str, float]) -> None:
        people = row["people"]
        self.seen.append(len(people))
        self.normal.append(sum(not person["abnormal"] for person in people))
        if row["score"] is not None:
            self.frame_scores.append(row["score"])
        for person in people:
            self.views.setdefault(person["id"], []).append(not person["abnormal"])
            self.highest += _highest(person)
            for name in {p["part"] for p in person["parts"] if is_flagged(p, thresholds)}:
                self.flagged[name] += 1

    def scores(self) -> dict:
        """Return the scores, the interval of the first one, and the counts."""
        views, normal = sum(self.seen), sum(self.normal)
        clean = sum(p == n for p, n in zip(self.seen, self.normal, strict=True))
        some = views > 0
        shares = [sum(own) / len(own) for own in self.views.values()]
        return {
            "video_results": normal / views if some else self.no_person,
            "ci95": self._interval() if some else None,
            "score_frame_mean": float(np.mean(self.frame_scores)) if some else self.no_person,
            "score_clean_frames": clean / len(self.seen),
            "score_soft": 1 - self.highest / views if some else self.no_person,
            "score_people": float(np.mean(shares)) if some else self.no_person,
            "frames": len(self.seen),
            "views": views,
            "abnormal_views": views - normal,
            "people": views,
            "abnormal_people": views - normal,
            "tracks": len(shares),
            "abnormal_by_part": {  # None: the part is not judged
                part: self.flagged[part] / max(views, 1) if part in self.flagged else None
                for part in used_parts(self.flagged)
            },
        }

    def _interval(self) -> list[float]:
        """Return the 95% bootstrap interval of the share of normal views, over frames."""
        views, normal = np.array(self.seen, float), np.array(self.normal, float)

        def share(drawn: np.ndarray) -> float:
            total = views[drawn].sum()
            return normal[drawn].sum() / total if total else np.nan

        return list(bootstrap(len(views), share, BOOTSTRAP_DRAWS))


@dataclass(repr=False)
class VideoResult:
    """A video's row of scores.json, and its frames' rows of frames.jsonl where they are kept.

    The properties are for rewards. `micro` is the share of normal views (video_results), `macro`
    the mean over people of their share of normal views (score_people), `soft` changes even when no
    verdict does (score_soft). Without people all three are SCORE.NO_PERSON.
    """

    summary: dict
    frames: list[dict] = field(default_factory=list)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = ("video_results", "score_soft", "views", "tracks", "frames")
        values = (f"{key}={self.summary[key]}" for key in shown if key in self.summary)
        return f"VideoResult({', '.join(values)})"

    def to_dict(self) -> dict:
        """Return all of it, properties included, as plain data that needs no package of ours."""
        names = ("micro", "macro", "soft", "people", "unreliable")
        kept = {"summary": self.summary, "frames": self.frames, "thresholds": dict(self.thresholds)}
        return copy.deepcopy({name: getattr(self, name) for name in names} | kept)

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
        """The people in the order of their ids.

        Each has "id", "views" (two in a frame where two boxes show the person), "normal" (the share
        of normal views) and "soft" (1 - the mean over views of the highest p).
        """
        views: dict[int, list[Mapping]] = {}
        for row in self.frames:
            for person in row["people"]:
                views.setdefault(person["id"], []).append(person)
        return [
            {
                "id": number,
                "views": len(seen),
                "normal": frame_score(seen),
                "soft": 1 - float(np.mean([_highest(view) for view in seen])),
            }
            for number, seen in sorted(views.items())
        ]

    @property
    def unreliable(self) -> str | None:
        """Why the scores say little, or None: nobody is there, or p lies near a threshold."""
        people = [person for row in self.frames for person in row["people"]]
        found: dict[str, list[Mapping]] = {}
        for part in (part for person in people for part in person["parts"]):
            found.setdefault(part["part"], []).append(part)
        for name, parts in found.items():
            median = np.median([part["p_abnormal"] for part in parts])
            near = float(np.mean([is_near(part, self.thresholds) for part in parts]))
            if is_abnormal(parts, self.thresholds) and median > SURELY_NORMAL and near > 0.5:
                return f"{name}: {near:.0%} of p are within {MARGIN} of the threshold"
        return None if people else "no people"
