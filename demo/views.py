"""Counts the verdicts on people whose truth is known. A view is one person in one frame."""

from collections.abc import Mapping, Sequence

from human_anomaly.configs.defaults import get_config, thresholds
from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.demo.paths import CONFIG
from human_anomaly.demo.truth import match


def own_box(person: Mapping) -> Mapping | None:
    """Return the person's body among its parts, or None where no square fitted it."""
    return next((part for part in person["parts"] if part["part"] == "human"), None)


class Views:
    """Counts flagged views: normal and abnormal ones, and those of second boxes."""

    def __init__(self):
        self.thresholds = thresholds(get_config(CONFIG))
        self.seen = dict.fromkeys(("normal", "abnormal", "second"), 0)
        self.flagged = dict(self.seen)
        self.normal_by_part = dict.fromkeys(BASE_PARTS, 0)

    def add(self, people: Sequence[Mapping], truth: Sequence[Mapping]) -> None:
        """Count one frame: `people` as in frames.jsonl, `truth` as in truth.jsonl."""
        people = [(person, box) for person in people if (box := own_box(person))]
        matches = match(
            [box["bbox"] for _, box in people],
            [box["detector_score"] for _, box in people],
            [person["human"] for person in truth],
        )
        for (person, _), found in zip(people, matches, strict=True):
            if found is None:
                kind = "second"
            else:
                kind = "abnormal" if truth[found]["abnormal_parts"] else "normal"
            self.seen[kind] += 1
            self.flagged[kind] += person["abnormal"]
            if kind == "normal":
                for name in self.normal_by_part:
                    ps = [p["p_abnormal"] for p in person["parts"] if p["part"] == name]
                    self.normal_by_part[name] += any(p > self.thresholds[name] for p in ps)

    def figures(self) -> dict[str, float]:
        """Return the shares of flagged views, and by which parts normal views are flagged."""
        normal = max(1, self.seen["normal"])
        shares = {
            f"{kind}_views_flagged": self.flagged[kind] / max(1, self.seen[kind])
            for kind in ("normal", "abnormal")
        }
        return shares | {
            f"normal_flagged_by_{p}": n / normal for p, n in self.normal_by_part.items()
        }


def confidence(people: Sequence[Mapping]) -> float | None:
    """Return the detector's mean score of people, None without any."""
    scores = [box["detector_score"] for person in people if (box := own_box(person))]
    return sum(scores) / len(scores) if scores else None
