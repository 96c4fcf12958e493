"""VBench-2.0's result for a scores.json: mean, result file, and rank among published scores."""

from dataclasses import dataclass, field
from pathlib import Path

from human_anomaly.configs.defaults import ConfigError, differences, get_config
from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.configs.places import ROOT, home
from human_anomaly.configs.values import SCORING_KEYS
from human_anomaly.data.download.fetch import FetchError
from human_anomaly.models.scoring.results import count, csv_table, first_five, mean_interval
from human_anomaly.models.weights import (
    RELEASE_CONFIG,
    RELEASE_DETECTOR_CONFIG,
    WEIGHTS,
    check_bytes,
    read_lock,
)
from human_anomaly.tools.vbench2.prompts import CUSTOM, DIMENSION, STANDARD
from human_anomaly.utils import UsageError, atomic_write, write_json

PUBLISHED = {
    "HunyuanVideo": 88.58,
    "Kling 1.6": 86.99,
    "Sora-480p": 86.45,
    "CogVideoX-1.5": 59.72,
}  # percent
VIDEOS = 360  # 120 prompts with 3 videos each


@dataclass
class Evaluation:
    """One model's videos as the benchmark counts them, in its order."""

    name: str
    rows: list[dict]  # {"video_path", "video_results"}
    scored: list[dict]  # their rows of scores.json
    missing: list[str] = field(default_factory=list)  # file names
    failed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    not_ranked: list[str] = field(default_factory=list)  # reasons

    @property
    def mean(self) -> float | None:
        """The mean over videos, 0 to 1; None without videos."""
        values = [row["video_results"] for row in self.rows]
        return sum(values) / len(values) if values else None


def collect(
    scores: dict, wanted: list[str], *, name: str, folder: Path | None = None, mode: str = STANDARD
) -> Evaluation:
    """Return the `wanted` videos (file names) of a scores.json as the benchmark counts them.

    With `folder`, only videos directly in it count. Raises UsageError where two have one name.
    """
    scored = _by_file_name(scores["videos"], folder)
    broken = _by_file_name(scores["failed"], folder)
    rows = [scored[name] for name in wanted if name in scored]
    result = Evaluation(
        name,
        [{"video_path": row["video_path"], "video_results": benchmark_score(row)} for row in rows],
        rows,
        missing=[name for name in wanted if name not in scored and name not in broken],
        failed=[name for name in wanted if name not in scored and name in broken],
        left_out=sorted(scored.keys() - set(wanted)),
    )
    if mode == CUSTOM:
        result.not_ranked.append(f"--mode {CUSTOM} scores any videos, not the benchmark's")
    elif not len(rows) == len(wanted) == VIDEOS:
        result.not_ranked.append(f"{len(rows)} of the benchmark's {VIDEOS} videos")
    result.not_ranked += unlike_published({**scores, "videos": rows})
    return result


def _by_file_name(rows: list[dict], folder: Path | None) -> dict[str, dict]:
    found = {}
    for row in rows:
        path = Path(row["video_path"])
        if folder is not None and path.parent != folder:
            continue
        if path.name in found:
            raise UsageError(
                f"expected the videos of one model, found two that are named {path.name}: "
                f"{found[path.name]['video_path']} and {path}"
            )
        found[path.name] = row
    return found


def benchmark_score(row: dict) -> float:
    """Return a video's score by the benchmark's rule: without people it is 1."""
    score = row.get("video_results")
    return 1.0 if score is None or row.get("people") == 0 else float(score)


def write_result(result: Evaluation, output: Path) -> Path:
    """Write `<name>_eval_results.json` as the benchmark does, and a table as CSV; return its path.

    A second key says which videos are missing or failed, if any.
    """
    content: dict = {DIMENSION: [result.mean, result.rows]}
    if result.missing or result.failed:
        content["incomplete"] = {
            "expected": len(result.rows) + len(result.missing) + len(result.failed),
            "missing": result.missing,
            "failed": result.failed,
        }
    path = output / f"{result.name}_eval_results.json"
    write_json(path, content)
    with atomic_write(path.with_suffix(".csv")) as file:
        file.write(_table(result))
    return path


def _table(result: Evaluation) -> str:
    """Return a line of CSV per expected video; one without views counts as 1 in the benchmark."""
    rows = []
    for row, scored in zip(result.rows, result.scored, strict=True):
        counts = map(scored.get, ("tracks", "views", "abnormal_views"))
        rows.append([*row.values(), "scored", *counts])
    for words, names in (("missing", result.missing), ("failed", result.failed)):
        rows += [[name, None, words, None, None, None] for name in names]
    header = ["video_path", "video_results", "state", "people", "views", "abnormal_views"]
    return csv_table(header, rows)


def format_result(result: Evaluation) -> str:
    """Return the result as text: what qualifies it, and the score as the last line."""
    lacking = (("missing", result.missing), ("failed", result.failed))
    lines = [
        f"{word}: {len(names)} ({first_five(names)})"
        for word, names in (*lacking, ("left out", result.left_out))
        if names
    ]
    if result.mean is None:
        return "\n".join([*lines, f"Human Anatomy of {result.name}: no video was scored"])
    score = 100 * result.mean
    interval = mean_interval([100 * row["video_results"] for row in result.rows])
    last = f"Human Anatomy of {result.name}: {score:.2f}"
    last += f" (95% {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    last += f", {count(len(result.rows), 'video')}"
    last += "".join(f", {len(names)} {word}" for word, names in lacking if names)
    if result.not_ranked:
        first, *others = result.not_ranked
        lines += [f"not comparable with the published scores: {reason}" for reason in others]
        last += f"; not ranked: {first}"
        last += f" (and {count(len(others), 'reason')} above)" if others else ""
    else:
        table = [*PUBLISHED.items(), (f"{result.name} (here)", score)]
        table.sort(key=lambda row: -row[1])
        lines.append("Human Anatomy (VBench-2.0)")
        lines += [f"{value:7.2f}  {model}" for model, value in table]
        rank = 1 + sum(published > score for published in PUBLISHED.values())
        last += f"; rank {rank} of {len(PUBLISHED) + 1}"
    return "\n".join([*lines, last])


def unlike_published(scores: dict) -> list[str]:
    """Return in words how weights, settings or frames of a scores.json differ from the published.

    This reads the weight files that the settings name.
    """
    settings = scores.get("settings")
    if not isinstance(settings, dict) or not _group(settings, "thresholds"):
        return ["the file does not say with which settings it was scored"]
    return _other_weights(settings) + _other_settings(settings) + _other_frames(scores, settings)


def _group(settings: dict, key: str) -> dict:
    value = settings.get(key)
    return value if isinstance(value, dict) else {}


def _other_weights(settings: dict) -> list[str]:
    recorded, models = read_lock(home()), _group(settings, "models")
    reasons, parts_by_hash = [f"{p} was scored, too" for p in models if p not in BASE_PARTS], {}
    for name in ("detector", *BASE_PARTS):
        file = settings.get("detector_weights") if name == "detector" else models.get(name)
        if file is None:
            reasons.append(f"{name} was not scored")
            continue
        try:
            found = check_bytes(Path(file), WEIGHTS[name], recorded.get(name))
        except FetchError as error:
            reasons.append(f"other {name} weights than the released: {file} ({error})")
        except OSError:
            reasons.append(f"{name} weights cannot be checked: {file} is not here")
        else:
            parts_by_hash.setdefault(found[2], []).append(name)
    # The released classifiers have one size, so only this finds a copy under a wrong name.
    reasons += [
        f"the weights of {' and '.join(names)} are one and the same file"
        for names in parts_by_hash.values()
        if len(names) > 1
    ]
    config = Path(str(settings.get("detector_config"))).name
    if config != Path(RELEASE_DETECTOR_CONFIG).name:
        reasons.append(f"the detector's config is {config}")
    return reasons


def _other_settings(settings: dict) -> list[str]:
    values = dict(_group(settings, "changed"))
    for part, value in _group(settings, "thresholds").items():  # "HUMAN" or "human"
        values[f"SCORE.THRESHOLDS.{part.upper()}"] = value
    if "channels" in settings:
        values["TEST.CHANNELS"] = settings["channels"]
    try:
        ours = get_config(flags={k: v for k, v in values.items() if k.startswith(SCORING_KEYS)})
    except ConfigError as error:
        return [f"a setting has no meaning here: {error}"]
    different = differences(ours, get_config(ROOT / RELEASE_CONFIG))
    named = [
        f"{key} {value} instead of {published}"
        for key, (published, value) in different.items()
        if key.startswith(SCORING_KEYS)
    ]
    return [f"other settings: {', '.join(named)}"] if named else []


def _other_frames(scores: dict, settings: dict) -> list[str]:
    reasons = []
    if settings.get("fast"):
        reasons.append("scored with --fast")
    elif "32" not in str(settings.get("dtype", "float32")):
        reasons.append(f"scored in {settings['dtype']}, published in float32")
    if settings.get("frame_stride", 1) != 1:
        reasons.append(f"not every frame was scored (--frame-stride {settings['frame_stride']})")
    cut = [r for r in scores["videos"] if r.get("frames", 0) < (r.get("frames_expected") or 0)]
    if cut:
        reasons.append(f"not every frame could be decoded in {len(cut)} of the videos")
    return reasons
