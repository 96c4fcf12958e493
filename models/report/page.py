"""The report: one folder with a page per video, which opens anywhere without a network.

python inference.py --video clips/ --output results --report     # scores and reports
python -m models.report.page results                                  # builds the pages again
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.defaults import PARTS
from data.video import Source
from models.benchmark.results import by_name, read_scores
from models.report.evidence import Evidence
from models.report.facts import FRAGILE_SHARE, MARGIN, near, timeline, video_facts
from models.report.heatmap import WORDS
from utils import UsageError, atomic_write, read_jsonl

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("templates")


def _environment():
    """Return the templates, with every value escaped unless it is marked safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    env.policies["json.dumps_kwargs"] = {"allow_nan": False}  # keys keep their order
    env.filters["score"] = lambda v: "-" if v is None else f"{v:.3f}"
    env.filters["raw"] = lambda v: "" if v is None else repr(v)
    env.filters["percent"] = lambda v: f"{100 * v:.1f}%"
    env.filters["share"] = lambda n, of: f"{100 * n / of:.1f}%" if of else "-"
    env.globals.update(margin=MARGIN, fragile_share=FRAGILE_SHARE, parts=PARTS, heat_words=WORDS)
    return env


def limits_of(scores: Mapping) -> dict[str, float]:
    """Return the thresholds that a scores.json was made with, by part."""
    limits = scores.get("settings", {}).get("thresholds")
    if not limits:
        raise UsageError("scores.json: settings.thresholds is missing; score the videos again")
    return {part.lower(): float(value) for part, value in limits.items()}


def _flat(tree: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows


def _link(source: Path, target: Path) -> None:
    """Put a file into the report: a hard link where the file system has them, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def histograms(values: Mapping[str, Sequence[float]], limits: Mapping[str, float]) -> str:
    """Return an SVG with one histogram of p per part, its threshold and the fragile band."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = {"human": "#3b6fd4", "face": "#b87a00", "hand": "#8e44c9"}
    shown = [part for part in PARTS if part in limits]
    with mpl.rc_context({"svg.hashsalt": "report", "font.size": 8}):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        for axes, part in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            found = np.asarray(values[part], np.float64)
            axes.hist(found, bins=50, range=(0, 1), color=colours[part])
            axes.axvspan(limits[part] - MARGIN, limits[part] + MARGIN, color="#f3d9a4", zorder=0)
            axes.axvline(limits[part], color="#1d2430", linewidth=1.2)
            above = int((found > limits[part]).sum())
            title = f"{part}: {above} of {len(found)} crops above {limits[part]:.3g}"
            axes.set_title(title)
            axes.set_xlim(0, 1)
            axes.set_xlabel("p(abnormal)")
            axes.spines[["top", "right"]].set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def _worst(page: Path, limits: Mapping[str, float]) -> tuple[list[dict], bool]:
    """Return the worst people of a video's evidence, and whether there is a thumbnail."""
    try:
        content = json.loads((page / "evidence.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [], False
    rows = [row for row in content["worst"] if row["part"] in limits]
    for row in rows:
        row["limit"] = limits[row["part"]]
        row["above"] = row["p_abnormal"] > row["limit"]
        row["near"] = near(row, limits)
        row.setdefault("heat", None)
    return rows, (page / "thumb.jpg").is_file()


def _build_video(env, evidence: Evidence, source: Source, name: str, row: Mapping) -> dict:
    """Write one video's page; return its row of the table."""
    rows = read_jsonl(evidence.rows(source))
    page, limits = evidence.page(source), evidence.limits
    page.mkdir(parents=True, exist_ok=True)
    if evidence.annotated(source).is_file():
        _link(evidence.annotated(source), page / "annotated.webm")
    worst, thumb = _worst(page, limits)
    facts = video_facts(rows, limits)
    shown = {
        "name": name,
        "path": row["video_path"],
        "page": f"videos/{page.name}",
        "thumb": thumb,
        "video": (page / "annotated.webm").is_file(),
        "score": row["video_results"],
        "soft": row["score_soft"],
        "ci95": row["ci95"],
        "people": row["people"],
        "abnormal": row["abnormal_people"],
        "frames": row["frames"],
        "by_part": row["abnormal_by_part"],
        "warnings": row["warnings"],
        **facts,
    }
    html = env.get_template("video.html").render(v=shown, t=timeline(rows, limits), worst=worst)
    with atomic_write(page / "index.html") as file:
        file.write(html)
    return shown


def build_report(folder: str | Path, sources: Sequence[Source]) -> Path:
    """Write `<folder>/report/` from the results in `folder`; return its index.html.

    `sources` are the inputs as they were scored: they tie a video's path to its files. Evidence
    that is missing is left out, and the page says so; `models.report.evidence` makes it.
    """
    folder = Path(folder)
    scores = read_scores(folder)
    limits = limits_of(scores)
    evidence = Evidence(folder, limits, report=True)
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    env = _environment()
    by_path = {str(source.path): source for source in sources}
    videos, values = [], {part: [] for part in PARTS}
    for name, row in by_name(scores["videos"]).items():
        source = by_path.get(row["video_path"])
        if source is None:
            raise UsageError(f"{folder}: scores.json names {row['video_path']}, not an input now")
        shown = _build_video(env, evidence, source, name, row)
        for part, found in shown.pop("p").items():
            values[part] += found
        videos.append(shown)
    _remove_others(report, {Path(v["page"]).name for v in videos})
    with atomic_write(report / "histograms.svg") as file:
        file.write(histograms(values, limits))
    for name in ("page.css", "page.js"):
        shutil.copyfile(PAGE / name, report / name)
    total = {key: sum(v[key] for v in videos) for key in ("people", "abnormal", "fragile")}
    html = env.get_template("index.html").render(
        videos=videos,
        failed=scores.get("failed", []),
        mean=scores.get("mean", {}).get("video_results"),
        total=total,
        settings=_flat(scores.get("settings", {})),
    )
    with atomic_write(report / "index.html") as file:
        file.write(html)
    return report / "index.html"


def _remove_others(report: Path, names: set[str]) -> None:
    """Delete pages of videos that are no longer among the results."""
    for page in (report / "videos").glob("*/"):
        if page.name not in names and (page / "evidence.json").is_file():
            shutil.rmtree(page, ignore_errors=True)
