"""The scoring rules: from the rows of a video's frames to its scores."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from configs.defaults import PARTS

BOOTSTRAP_DRAWS = 1000


def is_abnormal(parts: Iterable[Mapping], thresholds: Mapping[str, float]) -> bool:
    """Return the any-of-three rule: a person is abnormal if one part's p is above its threshold."""
    return any(part["p_abnormal"] > thresholds[part["part"]] for part in parts)


def frame_score(people: Sequence[Mapping]) -> float | None:
    """Return the share of normal people in a frame, None without people."""
    if not people:
        return None
    return sum(not person["abnormal"] for person in people) / len(people)


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
            self.highest += max((part["p_abnormal"] for part in parts), default=0.0)
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
