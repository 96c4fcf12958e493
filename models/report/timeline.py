"""The score and every person's parts over time, as SVG paths and as data for the page's script.

The paths lie in a box WIDTH x HEIGHT that the page stretches over its plot. x is time, and a score
or p of 0 is at the bottom.
"""

from collections.abc import Mapping, Sequence

from human_anomaly.models.report.draw import page_labels
from human_anomaly.models.scoring.scores import is_flagged

WIDTH, HEIGHT = 1000, 100
COLUMNS = 500  # the most bars in a lane; a bar shows the highest p of its frames
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)


def timeline(
    rows: Sequence[Mapping], thresholds: Mapping[str, float], sizes: Sequence[Sequence[int]] = ()
) -> dict | None:
    """Return the score's path, a lane per part of each person, ticks and data; None without rows.

    People with the most flagged views come first. `thresholds` holds the parts that were judged,
    `sizes` a (frame, width, height) for each change of the frames' size. The page shows the video
    in the first of these sizes.
    """
    if not rows:
        return None
    times = [row["time"] for row in rows]
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.04
    duration = max(times[-1] + step, 1e-3)
    ends = [*times[1:], duration]
    xs = [WIDTH * (time + end) / 2 / duration for time, end in zip(times, ends, strict=True)]
    parts = list(thresholds)
    rows = [_on_stage(row, sizes) for row in rows] if sizes else rows
    return {
        "score": score_path(xs, [row["score"] for row in rows]),
        "people": _lanes(rows, thresholds, duration),
        "ticks": _ticks(duration),
        "data": {
            "duration": duration,
            "frame": [row["frame"] for row in rows],
            "time": [round(time, 4) for time in times],
            "score": [None if row["score"] is None else round(row["score"], 4) for row in rows],
            "parts": parts,
            "thresholds": [thresholds[part] for part in parts],
            "people": [[_compact(person, parts) for person in row["people"]] for row in rows],
            "labels": [page_labels(row, thresholds, sizes[0][1:]) for row in rows if sizes],
        },
    }


def _on_stage(row: Mapping, sizes: Sequence[Sequence[int]]) -> Mapping:
    """Return the row with its boxes where the page shows them: fitted into the first size."""
    (_, width, height), wanted = sizes[0], row["frame"]
    _, w, h = next(size for size in reversed(sizes) if size[0] <= wanted)
    zoom = min(width / w, height / h)
    x, y = (width - w * zoom) / 2, (height - h * zoom) / 2

    def moved(found: Mapping) -> dict:
        x1, y1, x2, y2 = (value * zoom for value in found["bbox"])
        return {**found, "bbox": [x + x1, y + y1, x + x2, y + y2]}

    people = [moved(p) | {"parts": [moved(part) for part in p["parts"]]} for p in row["people"]]
    return {**row, "people": people}


def _compact(person: Mapping, parts: Sequence[str]) -> list:
    """Return [id, box, [[index of the part, box, p], ...]] with boxes x1, y1, x2, y2."""
    boxes = [
        [parts.index(p["part"]), [round(v) for v in p["bbox"]], round(p["p_abnormal"], 4)]
        for p in person["parts"]
    ]
    return [person["id"], [round(v) for v in person["bbox"]], boxes]


def score_path(xs: Sequence[float], scores: Sequence[float | None]) -> str:
    """Return a line through the known scores (0..1), broken where there are no people."""
    words, before = [], None
    for x, score, after in zip(xs, scores, [*scores[1:], None], strict=True):
        if score is not None:
            words.append(f"{'M' if before is None else 'L'}{x:.1f} {HEIGHT * (1 - score):.1f}")
            if before is None and after is None:
                words.append("h2")  # a lone frame would not be seen
        before = score
    return "".join(words)


def _lanes(rows, thresholds: Mapping[str, float], duration: float) -> list[dict]:
    """Return people as {"id", "views", "flagged", "lanes": [{"part", "normal", "flagged"}]}."""
    columns = min(len(rows), COLUMNS)
    highest: dict[int, dict[str, dict[int, Mapping]]] = {}  # person, part, column
    views: dict[int, list[bool]] = {}
    for row in rows:
        column = min(int(row["time"] / duration * columns + 1e-6), columns - 1)
        for person in row["people"]:
            views.setdefault(person["id"], []).append(person["abnormal"])
            lanes = highest.setdefault(person["id"], {})
            for part in person["parts"]:
                lane = lanes.setdefault(part["part"], {})
                lane[column] = max(part, lane.get(column, part), key=lambda p: p["p_abnormal"])
    people = [
        {
            "id": number,
            "views": len(views[number]),
            "flagged": sum(views[number]),
            "lanes": [
                {"part": part, **_bars(lanes[part], thresholds, columns)}
                for part in thresholds
                if part in lanes
            ],
        }
        for number, lanes in highest.items()
    ]
    return sorted(people, key=lambda person: (-person["flagged"], person["id"]))


def _bars(lane: Mapping[int, Mapping], thresholds: Mapping, columns: int) -> dict[str, str]:
    """Return the paths of a lane's normal and flagged bars; `lane` has the part of each column."""
    wide = WIDTH / columns
    paths: dict[str, list[str]] = {"normal": [], "flagged": []}
    for column, part in sorted(lane.items()):
        high = max(HEIGHT * part["p_abnormal"], 6)
        bar = f"M{column * wide:.1f} {HEIGHT}v{-high:.0f}h{wide:.1f}V{HEIGHT}z"
        paths["flagged" if is_flagged(part, thresholds) else "normal"].append(bar)
    return {kind: "".join(bars) for kind, bars in paths.items()}


def _ticks(duration: float) -> list[tuple[float, str]]:
    """Return at most five ticks as (percent of the plot's width, words)."""
    step = next((s for s in TICKS if duration / s <= 5), 7200)
    return [
        (100 * i * step / duration, f"{i * step:g} s")
        for i in range(int(duration / step) + 1)
        if i * step <= 0.94 * duration
    ]
