"""What the report says about a video, computed from its rows of frames.jsonl."""

from collections.abc import Mapping, Sequence

from configs.defaults import PARTS

MARGIN = 0.05  # a p this close to its threshold makes a verdict fragile
FRAGILE_SHARE = 0.2  # from this share of fragile people on, the report warns
BINS = 40

LEFT, WIDTH = 104, 888  # the timeline's plot within a picture 1000 wide
_SCORE, _PARTS, _PEOPLE = (12, 84), (122, 140), (288, 46)  # top and height of the panels
_HEIGHT = 356
_NOTHING = {"lines": [], "limits": [], "bars": ""}


def _score(people: Sequence[Mapping], limits: Mapping[str, float], shift: float) -> float | None:
    """Return the share of normal people with every threshold moved by `shift`."""
    if not people:
        return None
    normal = sum(
        not any(p["p_abnormal"] > limits[p["part"]] + shift for p in person["parts"])
        for person in people
    )
    return normal / len(people)


def near(part: Mapping, limits: Mapping[str, float]) -> bool:
    """Return whether a part's p lies within MARGIN of its threshold."""
    return abs(part["p_abnormal"] - limits[part["part"]]) <= MARGIN + 1e-9


def fragile_people(people: Sequence[Mapping], limits: Mapping[str, float]) -> int:
    """Return how many people have a part whose p lies within MARGIN of its threshold."""
    return sum(any(near(p, limits) for p in person["parts"]) for person in people)


def video_facts(rows: Sequence[Mapping], limits: Mapping[str, float]) -> dict:
    """Return counts, the table of parts and the scores at moved thresholds of one video."""
    people = [person for row in rows for person in row["people"]]
    crops = [part for person in people for part in person["parts"]]
    table = []
    for part in PARTS:
        mine = [c for c in crops if c["part"] == part]
        flagged = sum(
            any(p["part"] == part and p["p_abnormal"] > limits[part] for p in person["parts"])
            for person in people
        )
        if part in limits:
            values = [c["p_abnormal"] for c in mine]
            table.append(
                {
                    "part": part,
                    "judged": len(mine),
                    "flagged": flagged,
                    "highest": max(values, default=None),
                    "limit": limits[part],
                    "near": sum(near(c, limits) for c in mine),
                    "bars": histogram_path(values),
                }
            )
    return {
        "fragile": fragile_people(people, limits),
        "strict": _score(people, limits, -MARGIN),
        "lenient": _score(people, limits, MARGIN),
        "table": table,
        "p": {part: [c["p_abnormal"] for c in crops if c["part"] == part] for part in PARTS},
    }


def histogram_path(values: Sequence[float]) -> str:
    """Return SVG bars of values in 0..1 in a box 100 wide and 24 high."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(value * BINS), BINS - 1)] += 1
    most, wide = max(counts) or 1, 100 / BINS
    return "".join(
        f"M{i * wide:.1f} 24v{-max(23 * n / most, 1):.1f}h{wide:.1f}V24z"
        for i, n in enumerate(counts)
        if n
    )


def _path(xs: Sequence[float], values: Sequence[float | None], top: float, height: float) -> str:
    """Return an SVG line through the known values (0..1), broken where one is missing."""
    words, drawing = [], False
    for i, (x, value) in enumerate(zip(xs, values, strict=True)):
        if value is None:
            drawing = False
            continue
        y = top + height * (1 - value)
        words.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        if not drawing and (i + 1 == len(values) or values[i + 1] is None):
            words.append("h2")  # a lone frame would not be seen
        drawing = True
    return "".join(words)


def timeline(rows: Sequence[Mapping], limits: Mapping[str, float]) -> dict | None:
    """Return the timeline's geometry (a picture 1000 wide) and its data; None without frames."""
    if not rows:
        return None
    times = [row["time"] for row in rows]
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.04
    duration = max(times[-1] + step, 1e-3)
    xs = [LEFT + WIDTH * (t + step / 2) / duration for t in times]
    highest = {part: [_highest(row, part) for row in rows] for part in PARTS if part in limits}
    people = [len(row["people"]) for row in rows]
    scores = [row["score"] for row in rows]
    return {
        "left": LEFT,
        "width": WIDTH,
        "height": _HEIGHT,
        "count": len(rows),
        "panels": [
            {**_NOTHING, **_score_panel(xs, scores)},
            {**_NOTHING, **_parts_panel(xs, highest, limits)},
            {**_NOTHING, **_people_panel(xs, people, WIDTH * step / duration)},
        ],
        "times": _time_ticks(duration),
        "data": {
            "left": LEFT,
            "width": WIDTH,
            "duration": duration,
            "step": step,
            "frame": [row["frame"] for row in rows],
            "time": [round(t, 4) for t in times],
            "score": [_round(s) for s in scores],
            "people": people,
            "p": {part: [_round(v) for v in values] for part, values in highest.items()},
        },
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _highest(row: Mapping, part: str) -> float | None:
    values = [
        p["p_abnormal"] for person in row["people"] for p in person["parts"] if p["part"] == part
    ]
    return max(values, default=None)


def _ticks(top: float, height: float) -> list[tuple[float, str]]:
    return [(top + height * (1 - v), f"{v:g}") for v in (0, 0.5, 1)]


def _score_panel(xs, scores) -> dict:
    top, height = _SCORE
    lines = [{"colour": "#1d2430", "d": _path(xs, scores, top, height)}]
    return {
        "title": "score",
        "middle": top + height / 2,
        "ticks": _ticks(top, height),
        "lines": lines,
    }


def _parts_panel(xs, highest, limits) -> dict:
    top, height = _PARTS
    lines = [
        {"colour": f"var(--{part})", "d": _path(xs, values, top, height)}
        for part, values in highest.items()
    ]
    dashed = [(top + height * (1 - limits[part]), part) for part in highest]
    return {
        "title": "highest p",
        "middle": top + height / 2,
        "ticks": _ticks(top, height),
        "lines": lines,
        "limits": dashed,
    }


def _people_panel(xs, people, step: float) -> dict:
    top, height = _PEOPLE
    most = max(max(people), 1)
    wide = max(step * 0.9, 0.5)
    bars = "".join(
        f"M{x - wide / 2:.1f} {top + height}v{-height * n / most:.1f}h{wide:.1f}V{top + height}z"
        for x, n in zip(xs, people, strict=True)
        if n
    )
    ticks = [(top + height, "0"), (top, str(most))]
    return {"title": "people", "middle": top + height / 2, "ticks": ticks, "bars": bars}


def _time_ticks(duration: float) -> list[tuple[float, str]]:
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)
    step = next((s for s in steps if duration / s <= 8), 7200)
    count = int(duration / step)
    ticks = [(LEFT + WIDTH * i * step / duration, f"{i * step:g} s") for i in range(count + 1)]
    return [(x, label) for x, label in ticks if x <= LEFT + WIDTH - 8]
