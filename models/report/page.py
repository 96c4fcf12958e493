"""The report: one folder with a page per video, which opens anywhere without a network.

python inference.py --video clips/ --output results --report     # scores and reports
python -m tools.report results                                  # builds the pages again
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from human_anomaly.configs.defaults import PARTS, flatten
from human_anomaly.configs.values import SCORING_KEYS
from human_anomaly.models.report.evidence import Evidence, read_evidence
from human_anomaly.models.report.facts import FRAGILE_SHARE, histogram_path, video_facts
from human_anomaly.models.report.heatmap import WORDS
from human_anomaly.models.report.timeline import timeline
from human_anomaly.models.scoring.results import by_name, csv_table, read_scores
from human_anomaly.models.scoring.scores import MARGIN, is_near
from human_anomaly.utils import UsageError, atomic_write, read_jsonl

TEMPLATES = Path(__file__).with_name("templates")
ASSETS = ("page.css", "index.js", "video.js")
GALLERY = 24  # worst crops on the first page, of each part
ROWS_SUFFIX = ".frames.jsonl"


def environment():
    """Return jinja2's environment, which escapes every value unless it is marked safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    env.policies["json.dumps_kwargs"] = {"allow_nan": False}  # keys keep their order
    env.filters["score"] = lambda v: "-" if v is None else f"{v:.3f}"
    env.filters["raw"] = lambda v: "" if v is None else repr(v)
    env.filters["percent"] = lambda v: "-" if v is None else f"{100 * v:.1f}%"
    env.filters["share"] = lambda n, of: f"{100 * n / of:.1f}%" if of else "-"
    env.globals.update(margin=MARGIN, fragile_share=FRAGILE_SHARE, heat_words=WORDS)
    return env


def judged_thresholds(scores: Mapping) -> dict[str, float]:
    """Return the thresholds of a scores.json, for the parts that were judged."""
    thresholds = scores.get("settings", {}).get("thresholds")
    if not thresholds:
        raise UsageError("scores.json: settings.thresholds is missing; score the videos again")
    judged = {
        part
        for row in scores["videos"]
        for part, share in row["abnormal_by_part"].items()
        if share is not None
    } or {key.lower() for key in thresholds}
    return {p: float(thresholds[p.upper()]) for p in PARTS if p in judged}


def scoring_settings(settings: Mapping) -> list[tuple[str, str]]:
    """Return (name, value) of those settings in scores.json on which scores depend."""
    rows = []
    for key, value in flatten(settings):
        _, changed, name = key.partition("changed.")
        if not changed or name.startswith(SCORING_KEYS):
            rows.append((key, value if isinstance(value, str) else json.dumps(value)))
    return rows


def _stem(folder: Path, row: Mapping) -> str:
    """Return the stem of a video's files; raises UsageError where scores.json names none."""
    name = row.get("frames_file")
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(ROWS_SUFFIX):
        raise UsageError(f"{folder}: scores.json: no frames_file of {row['video_path']}")
    return name.removesuffix(ROWS_SUFFIX)


def _read_rows(path: Path) -> list[dict]:
    rows = read_jsonl(path)
    if any("id" not in person for row in rows for person in row["people"]):
        raise UsageError(f"{path}: people have no id; score the video again with --overwrite")
    return rows


def _worst(evidence: Mapping | None, thresholds: Mapping[str, float]) -> list[dict]:
    """Return a video's worst parts as the pages show them."""
    return [
        {"heat": None, "threshold": thresholds[row["part"]], "near": is_near(row, thresholds)} | row
        for row in (evidence["worst"] if evidence else ())
        if row["part"] in thresholds
    ]


def _build_video(env, evidence: Evidence, stem: str, name: str, row: Mapping) -> dict:
    """Write one video's page; return what the first page says about it."""
    rows = _read_rows(evidence.rows(stem))
    page, thresholds = evidence.page(stem), evidence.thresholds
    page.mkdir(parents=True, exist_ok=True)
    found = read_evidence(page, evidence.rows(stem))
    shown = {
        "name": name,
        "path": row["video_path"],
        "page": f"videos/{page.name}",
        "thumb": (page / "thumb.jpg").is_file(),
        "video": found is not None and (page / "video.webm").is_file(),
        "size": found["sizes"][0][1:] if found else None,
        "score": row["video_results"],
        "per_person": row.get("score_people"),
        "soft": row["score_soft"],
        "ci95": row["ci95"],
        "tracks": row.get("tracks"),
        "views": row["people"],  # earlier versions wrote the views under this name only
        "abnormal": row["abnormal_people"],
        "frames": row["frames"],
        "by_part": row["abnormal_by_part"],
        "warnings": row["warnings"],
        "worst": _worst(found, thresholds),
        **video_facts(rows, thresholds),
    }
    plot = timeline(rows, thresholds, found["sizes"] if found else [])
    html = env.get_template("video.html").render(v=shown, t=plot)
    with atomic_write(page / "index.html") as file:
        file.write(html)
    return shown


def _gallery(videos: Sequence[Mapping], parts: Sequence[str]) -> list[dict]:
    """Return the GALLERY worst crops of each part in all videos, highest p first."""
    crops = [
        {**crop, "page": video["page"], "name": video["name"]}
        for video in videos
        for crop in video["worst"]
    ]
    crops.sort(key=lambda crop: -crop["p_abnormal"])
    kept = [c for part in parts for c in [c for c in crops if c["part"] == part][:GALLERY]]
    return sorted(kept, key=lambda crop: -crop["p_abnormal"])


def _table(videos: Sequence[Mapping], parts: Sequence[str]) -> str:
    """Return the first page's table as CSV, unrounded."""
    header = ["video", "score", "ci95_low", "ci95_high", "score_people", "score_soft"]
    header += ["people", "views", "abnormal_views", "views_near_a_threshold"]
    rows = []
    for v in videos:
        cells = [v["path"], v["score"], *(v["ci95"] or (None, None)), v["per_person"], v["soft"]]
        cells += [v["tracks"], v["views"], v["abnormal"], v["fragile"]]
        rows.append([*cells, *(v["by_part"].get(part) for part in parts)])
    return csv_table([*header, *(f"{part}_flagged" for part in parts)], rows)


def build_report(folder: str | Path) -> Path:
    """Write `<folder>/report/` from the results in `folder`; return its index.html.

    A page says so if its evidence is missing; `inference.py --report` makes it. Raises UsageError
    where the results cannot be read.
    """
    folder = Path(folder)
    scores = read_scores(folder)
    evidence = Evidence(folder, judged_thresholds(scores), report=True)
    parts = list(evidence.thresholds)
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    env = environment()
    env.globals["warnings"] = scores["warnings"]
    videos, values = [], {part: [] for part in parts}
    for name, row in by_name(scores["videos"]).items():
        shown = _build_video(env, evidence, _stem(folder, row), name, row)
        for part, found in shown.pop("p").items():
            values[part] += found
        videos.append(shown)
    _remove_others(report, {Path(v["page"]).name for v in videos})
    # Failures first; videos without a score come last.
    videos.sort(key=lambda v: (v["score"] is None, v["score"] or 0.0, v["soft"] or 0.0))
    files = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in ASSETS}
    files["scores.csv"] = _table(videos, parts)
    files["index.html"] = env.get_template("index.html").render(
        videos=videos,
        failed=scores["failed"],
        mean=scores.get("mean", {}).get("video_results"),
        total={key: sum(v[key] for v in videos) for key in ("views", "abnormal", "fragile")},
        tracks=sum(v["tracks"] or 0 for v in videos),
        parts=parts,
        histograms=[
            {
                "part": part,
                "threshold": evidence.thresholds[part],
                "judged": len(values[part]),
                "above": sum(value > evidence.thresholds[part] for value in values[part]),
                "bars": histogram_path(values[part]),
            }
            for part in parts
        ],
        gallery=_gallery(videos, parts),
        settings=scoring_settings(scores.get("settings", {})),
    )
    for name, text in files.items():
        with atomic_write(report / name) as file:
            file.write(text)
    return report / "index.html"


def _remove_others(report: Path, names: set[str]) -> None:
    """Delete pages of videos that are no longer among the results."""
    for page in (report / "videos").glob("*/"):
        if page.name not in names and (page / "evidence.json").is_file():
            shutil.rmtree(page, ignore_errors=True)
