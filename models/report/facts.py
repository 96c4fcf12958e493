"""What the report says about a video, computed from its rows of frames.jsonl."""

from collections.abc import Mapping, Sequence

from human_anomaly.models.scoring.scores import MARGIN, frame_score, is_abnormal, is_near

FRAGILE_SHARE = 0.2  # the report warns from this share of fragile views on
BINS = 40


def _score(
    people: Sequence[Mapping], thresholds: Mapping[str, float], shift: float
) -> float | None:
    """Return the share of normal views with every threshold moved by `shift`."""
    moved = {part: threshold + shift for part, threshold in thresholds.items()}
    return frame_score([{"abnormal": is_abnormal(one["parts"], moved)} for one in people])


def video_facts(rows: Sequence[Mapping], thresholds: Mapping[str, float]) -> dict:
    """Return a video's table of parts, its scores at moved thresholds, and its fragile views."""
    people = [person for row in rows for person in row["people"]]
    table, values = [], {}
    for part in thresholds:
        seen = [[p for p in person["parts"] if p["part"] == part] for person in people]
        crops = [p for found in seen for p in found]
        values[part] = [p["p_abnormal"] for p in crops]
        table.append(
            {
                "part": part,
                "judged": len(crops),
                "flagged": sum(is_abnormal(found, thresholds) for found in seen),
                "highest": max(values[part], default=None),
                "threshold": thresholds[part],
                "near": sum(is_near(p, thresholds) for p in crops),
                "bars": histogram_path(values[part]),
            }
        )
    return {
        "fragile": sum(any(is_near(p, thresholds) for p in one["parts"]) for one in people),
        "strict": _score(people, thresholds, -MARGIN),
        "lenient": _score(people, thresholds, MARGIN),
        "table": table,
        "p": values,
    }


def histogram_path(values: Sequence[float]) -> str:
    """Return an SVG path: the bars of values in 0..1, in a box 100 wide and 24 high."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(value * BINS), BINS - 1)] += 1
    most, wide = max(counts) or 1, 100 / BINS
    return "".join(
        f"M{i * wide:.1f} 24v{-max(23 * n / most, 1):.1f}h{wide:.1f}V24z"
        for i, n in enumerate(counts)
        if n
    )
