"""How well scores agree with what people preferred, for pairs of videos.

    python -m tools.agreement results/a/scores.json results/b/scores.json \\
        --preferences preferences.csv

The preferences are CSV with the columns video_a,video_b,winner (winner: a, b or tie), or a JSON
list of such objects or of lists of three. A video is named by its path, or by the end of its path
if no other path ends so. A folder in the names is taken as the model, and models are ranked.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from human_anomaly.models.scoring.results import SCORES, first_five, mean_interval, read_scores
from human_anomaly.models.scoring.scores import bootstrap
from human_anomaly.utils import (
    UsageError,
    command_parser,
    parse_csv,
    parse_json,
    run_main,
    write_json,
)

COLUMNS = ("video_a", "video_b", "winner")
SIGN = {"a": 1, "tie": 0, "b": -1}
# Two annotators give the same answer on this share of raw pairs (arXiv 2605.03475).
HUMAN_CEILING = 0.669
EXPECTED = "expected video_a, video_b and winner (a, b or tie)"


@dataclass(frozen=True)
class Preference:
    """People preferred video a (1) or b (-1), or neither (0)."""

    video_a: str
    video_b: str
    sign: int


def read_preferences(path: Path) -> list[Preference]:
    """Return the pairs in a CSV or JSON file; raises UsageError, which names the wrong place."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--preferences: cannot read {path}: {error}") from error
    read = _json_rows if path.suffix.lower() == ".json" else _csv_rows
    pairs = [_preference(f"--preferences: {path}: {place}", row) for place, row in read(path, text)]
    if not pairs:
        raise UsageError(f"--preferences: {path} holds no pair; {EXPECTED}")
    return pairs


def _csv_rows(path: Path, text: str) -> list[tuple[str, dict]]:
    rows = parse_csv(text, f"--preferences: {path}")
    _, found = next(rows, (1, []))
    if not set(COLUMNS) <= set(found):
        raise UsageError(f"--preferences: {path}: {EXPECTED} as columns, found {', '.join(found)}")
    rows = ((line, dict(zip(found, cells, strict=False))) for line, cells in rows if cells)
    return [(f"line {line}", row) for line, row in rows]


def _json_rows(path: Path, text: str) -> list[tuple[str, object]]:
    content = parse_json(text, f"--preferences: {path}")
    if not isinstance(content, list):
        keys = f" with {', '.join(list(content)[:5])}" if isinstance(content, dict) else ""
        found = type(content).__name__ + keys
        raise UsageError(f"--preferences: {path}: expected a list of pairs, found {found}")
    return [(f"entry {number}", row) for number, row in enumerate(content)]


def _preference(place: str, row: object) -> Preference:
    if isinstance(row, list) and len(row) == len(COLUMNS):
        row = dict(zip(COLUMNS, row, strict=True))
    values = [row.get(name) for name in COLUMNS] if isinstance(row, dict) else []
    if not values or not all(isinstance(value, str) for value in values):
        raise UsageError(f"{place}: {EXPECTED}, found {json.dumps(row)[:120]}")
    winner = values[2].strip().lower()
    if winner not in SIGN:
        raise UsageError(f"{place}: winner: expected a, b or tie, found {values[2]!r}")
    return Preference(values[0].strip(), values[1].strip(), SIGN[winner])


class Videos:
    """Finds scored videos by their path or its end."""

    def __init__(self, rows: Sequence[dict]):
        self._by_ending = defaultdict(list)
        for row in rows:
            parts = _parts(row["video_path"])
            for start in range(len(parts)):
                self._by_ending[parts[start:]].append(row)

    def find(self, name: str) -> dict | None:
        """Return the row of the video `name`, None without one; UsageError for several."""
        rows = self._by_ending.get(_parts(name), [])
        if len(rows) > 1:
            paths = [row["video_path"] for row in rows]
            raise UsageError(f"--preferences: {name} may be any of {first_five(paths)}")
        return rows[0] if rows else None


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.replace("\\", "/")).parts


def _model(name: str) -> str | None:
    """Return the folder in a video's name, or None."""
    return _parts(name)[-2] if len(_parts(name)) > 1 else None


def score_names(rows: Sequence[dict]) -> list[str]:
    """Return the names of the scores in rows of scores.json, the known ones first."""
    others = {k for row in rows for k, v in row.items() if k.startswith("score_") and _known(v)}
    return [*SCORES, *sorted(others - set(SCORES))]


def _known(value: object) -> bool:
    return isinstance(value, (int, float))


def best_tie_threshold(differences: np.ndarray, signs: np.ndarray) -> float:
    """Return the tie threshold (the largest difference called a tie) that fits `signs` best."""
    cuts = np.concatenate([[-1.0], np.unique(np.abs(differences))])  # below 0: no ties at all
    hits = [np.mean(_called(differences, cut) == signs) for cut in cuts]
    return float(cuts[int(np.argmax(hits))])


def _called(differences: np.ndarray, tie: float) -> np.ndarray:
    return np.where(np.abs(differences) <= tie, 0, np.sign(differences))


def pair_accuracy(differences: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return 1 where the scores agree with people, 0.5 where they are equal, else 0.

    Pairs that people called a tie are left out.
    """
    decided = signs != 0
    return (np.sign(differences) * signs)[decided] / 2 + 0.5


def rank_models(
    pairs: Sequence[Preference], videos: Videos, score: str, samples: int
) -> dict | None:
    """Return Spearman's correlation between models' share of wins and mean score.

    A tie is half a win. The interval resamples pairs. Returns None for fewer than three models, and
    if all have the same mean score.
    """
    known = [p for p in pairs if _model(p.video_a) and _model(p.video_b)]
    scores = defaultdict(list)
    for name in dict.fromkeys(n for p in known for n in (p.video_a, p.video_b)):
        if _known(value := (videos.find(name) or {}).get(score)):
            scores[_model(name)].append(value)
    models = sorted(scores)
    means = np.array([np.mean(scores[model]) for model in models])
    if len(models) < 3 or np.ptp(means) == 0:
        return None
    number = {model: i for i, model in enumerate(models)}
    duels = [(number.get(_model(p.video_a)), number.get(_model(p.video_b)), p.sign) for p in known]
    duels = np.array([duel for duel in duels if None not in duel])

    def correlation(drawn: np.ndarray) -> float:
        from scipy.stats import spearmanr

        a, b, signs = duels[drawn].T
        won, count = signs / 2 + 0.5, len(models)
        wins = np.bincount(a, won, count) + np.bincount(b, 1 - won, count)
        pairs_of = np.bincount(a, minlength=count) + np.bincount(b, minlength=count)
        seen = pairs_of > 0
        return float(spearmanr(wins[seen] / pairs_of[seen], means[seen]).statistic)

    interval = bootstrap(len(duels), correlation, samples)
    value = correlation(np.arange(len(duels)))
    return {"models": len(models), "spearman": value, "ci95": list(interval)}


def agree(
    pairs: Sequence[Preference], rows: Sequence[dict], score: str, samples: int = 1000
) -> dict:
    """Return how well `score` of the videos' `rows` agrees with `pairs`.

    Intervals resample pairs. "left_out" counts the pairs that lack a score.
    """
    videos = Videos(rows)
    found = []
    for pair in pairs:
        a, b = ((videos.find(n) or {}).get(score) for n in (pair.video_a, pair.video_b))
        if _known(a) and _known(b):
            found.append((a - b, pair.sign))
    result = {"score": score, "pairs": len(found), "left_out": len(pairs) - len(found)}
    if not found:
        return result
    differences, signs = (np.array(column) for column in zip(*found, strict=True))
    tie = best_tie_threshold(differences, signs)
    with_ties = (_called(differences, tie) == signs).astype(float)
    return result | {
        "without_ties": _share(pair_accuracy(differences, signs), samples),
        "with_ties": _share(with_ties, samples) | {"threshold": tie},
        "models": rank_models(pairs, videos, score, samples),
    }


def _share(values: np.ndarray, samples: int) -> dict:
    interval = mean_interval(values.tolist(), samples=samples)
    mean = float(values.mean()) if len(values) else None
    return {"pairs": len(values), "share": mean, "ci95": list(interval) if interval else None}


def format_table(results: Sequence[dict]) -> str:
    """Return a Markdown table with a row per score, and how to read it."""
    lines = [
        "| score | pairs | agree, without ties | agree, with ties (tie up to) | models, Spearman |",
        "|---|---|---|---|---|",
    ]
    for row in results:
        if not row["pairs"]:
            lines.append(f"| {row['score']} | 0 | - | - | - |")
            continue
        ties, models, ranks = row["with_ties"], row["models"], "-"
        threshold = "never" if ties["threshold"] < 0 else f"{ties['threshold']:.4f}"
        if models is not None:
            low, high = models["ci95"]
            ranks = f"{models['models']}: {models['spearman']:.3f} [{low:.3f}, {high:.3f}]"
        cells = [_cell(row["without_ties"]), f"{_cell(ties)} ({threshold})", ranks]
        lines.append(f"| {row['score']} | {row['pairs']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Two annotators agree on {HUMAN_CEILING:.1%} of raw pairs (arXiv 2605.03475), so a score",
        "cannot be expected to agree on more. The tie threshold is the best one on these pairs, so",
        "the column with ties is a little too high. Intervals resample pairs: they are too narrow",
        "where many pairs share a video.",
    ]
    return "\n".join(lines)


def _cell(share: dict) -> str:
    if share["share"] is None:
        return "-"
    interval = share["ci95"]
    shown = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{share['share']:.3f}{shown} of {share['pairs']}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "tools.agreement")
    parser.add_argument("scores", nargs="+", type=Path, help="scores.json, or its folder")
    parser.add_argument("--preferences", type=Path, required=True, help="CSV or JSON of pairs")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples (1000)")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    args = parser.parse_args(argv)
    pairs = read_preferences(args.preferences)
    rows = [row for path in args.scores for row in read_scores(path)["videos"]]
    videos = Videos(rows)
    names = dict.fromkeys(name for p in pairs for name in (p.video_a, p.video_b))
    missing = [name for name in names if videos.find(name) is None]
    if len(missing) == len(names):
        raise UsageError(
            f"--preferences: none of its videos is scored: expected names such as "
            f"{first_five([row['video_path'] for row in rows])}, found {first_five(missing)}"
        )
    results = [agree(pairs, rows, score, args.samples) for score in score_names(rows)]
    if not any(result["pairs"] for result in results):
        lacking = f"; not scored: {first_five(missing)}" if missing else ""
        raise UsageError(f"--preferences: no pair has scores of both its videos{lacking}")
    if missing:
        print(f"not scored, so their pairs are left out: {len(missing)} ({first_five(missing)})")
    print(format_table(results))
    if args.output:
        write_json(args.output, {"human_ceiling": HUMAN_CEILING, "scores": results})
    return 0


if __name__ == "__main__":
    run_main(main, (OSError,))
