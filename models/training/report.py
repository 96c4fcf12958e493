"""The report of a classifier on labelled crops: a page, its pictures, and every prediction."""

import csv
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from human_anomaly.configs.defaults import differences, get_config
from human_anomaly.data.checks import spread
from human_anomaly.data.cropping.crop_lists import view_of
from human_anomaly.data.dataset import Manifest, read_image
from human_anomaly.models.report.page import GALLERY, TEMPLATES, environment
from human_anomaly.models.training import plots
from human_anomaly.models.training.metrics import probabilities
from human_anomaly.utils import UsageError, atomic_write, rank, read_jsonl, write_json

logger = logging.getLogger(__name__)

ASSETS = ("page.css", "index.js")
PICTURE = 512  # the longer side of a mistake's picture, at most


def describe_origin(checkpoint: Path, crops: Manifest) -> dict:
    """Return the keys of metrics.json that say which checkpoint and crops a report is about."""
    return {
        "checkpoint": str(checkpoint),
        "val_path": str(crops.path),
        "part": crops.part,
        "abnormal_label": crops.abnormal_label,
    }


def check_report(folder: Path, checkpoint: Path, crops: Manifest, *, overwrite: bool) -> None:
    """Raise UsageError if `folder` holds a report of another checkpoint or of other crops."""
    path = folder / "metrics.json"
    if overwrite or not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, value in describe_origin(checkpoint, crops).items():
        if found.get(key) != value:
            raise UsageError(
                f"--output: {folder} is a report of {key} {found.get(key)!r}, not {value!r}; "
                "choose another folder, or --overwrite"
            )


def save_report(
    run: Path,
    checkpoint: Path,
    crops: Manifest,
    logits: np.ndarray,
    metrics: dict,
    before: np.ndarray | None = None,
) -> None:
    """Write the report below the folder `run`, with curves if `checkpoint` lies in that folder.

    Process 0 writes.
    """
    path = run / "metrics.jsonl"
    is_own = checkpoint.resolve().parent == run.resolve() and path.is_file()
    if rank() == 0:
        history = read_jsonl(path) if is_own else []
        report = run / "report"
        write_report(report, checkpoint, crops, logits, metrics, history=history, before=before)


def write_report(
    folder: Path,
    checkpoint: Path,
    crops: Manifest,
    logits: np.ndarray,
    metrics: dict,
    *,
    history: Sequence[dict] = (),
    before: np.ndarray | None = None,
) -> None:
    """Write the report of `logits` (N,), which `checkpoint` gives `crops`, into `folder`.

    `metrics` is what `measure` returned. `history` are the rows of metrics.jsonl of the run that
    `folder` lies in (none: no curves), `before` (N,) the logits before a calibration. metrics.json
    is written last: where it exists, the report is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets, p, threshold = crops.targets, probabilities(logits), metrics["threshold"]
    write_predictions(folder / "val_predictions.csv", crops, logits, threshold)
    origin = describe_origin(checkpoint, crops)
    curves = {"": p} if before is None else {"before: ": probabilities(before), "after: ": p}
    epochs = list_epochs(folder.parent, history)
    files = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in ASSETS}
    files["index.html"] = (
        environment()
        .get_template("train.html")
        .render(
            part=crops.part,
            checkpoint=checkpoint.name,
            crops=crops.path.name,
            abnormal=int(targets.sum()),
            m=metrics,
            epochs=epochs,
            calibrated=before is not None,
            figures=[
                *plots.plot_epochs(epochs),
                *plots.plot_ranking(targets, p, metrics),
                *plots.plot_calibration(targets, curves, threshold),
            ],
            histograms=plots.plot_scores(targets, p, threshold),
            mistakes=save_mistakes(folder, crops, p, threshold),
            settings=[*origin.items(), *(read_changes(folder.parent) if history else ())],
        )
    )
    for name, text in files.items():
        with atomic_write(folder / name) as file:
            file.write(text)
    write_json(folder / "metrics.json", {**origin, "metrics": metrics})
    logger.info(f"report: {folder / 'index.html'}")


def list_epochs(run: Path, history: Sequence[Mapping]) -> list[dict]:
    """Return the measured epochs' rows of metrics.jsonl, with what each is and the files it left.

    "what" is "last", "best" (highest AUROC, the first of equal ones), both or empty.
    """
    rows = [row for row in history if "val" in row]
    best = max(rows, key=lambda row: row["val"]["auroc"], default=None)
    found = []
    for row in rows:
        what = [w for w, it in (("last", rows[-1]), ("best", best)) if it is row]
        names = [f"ckpt{row['epoch']}.pth", *(f"{word}.pth" for word in what)]
        files = [name for name in names if (run / name).is_file()]
        found.append({**row, "what": " and ".join(what), "files": files})
    return found


def read_changes(run: Path) -> list[tuple[str, str]]:
    """Return the settings of the run in `run` that differ from the defaults."""
    try:
        changed = differences(get_config(run / "config.yaml"))
    except UsageError as error:  # another version wrote it, and the figures do not need it
        return [("config.yaml", f"cannot be read: {error}")]
    return [(key, f"{value!r} (default {old!r})") for key, (old, value) in changed.items()]


def write_predictions(path: Path, crops: Manifest, logits: np.ndarray, threshold: float) -> None:
    """Write one CSV row per crop, in the order of the JSONL."""
    p = probabilities(logits)
    flagged = (p > threshold).astype(int)
    correct = (flagged == crops.targets).astype(int)
    columns = (crops.names, crops.labels, crops.targets, p, logits, flagged, correct)
    with atomic_write(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "label", "abnormal", "p_abnormal", "logit", "flagged", "correct"])
        for *crop, score, logit, flag, right in zip(*columns, strict=True):
            table.writerow([*crop, f"{score:.6f}", f"{logit:.6f}", flag, right])


def worst_mistakes(
    names: Sequence[str], targets: np.ndarray, p: np.ndarray, threshold: float, most: int = GALLERY
) -> list[int]:
    """Return the rows of at most `most` missed and `most` falsely flagged crops, clearest first.

    They are spread over people and videos, see `spread`.
    """
    # The distance from the threshold is divided by the greatest possible one on that side: with a
    # threshold of 0.3, p = 0 for an abnormal crop is as clear a mistake as p = 1 for a normal one.
    flagged = p > threshold
    greatest = np.where(flagged, max(1 - threshold, 1e-9), max(threshold, 1e-9))
    order = np.argsort(-np.abs(p - threshold) / greatest, kind="stable")
    wrong = order[flagged[order] != (targets[order] == 1)]
    kinds = [wrong[flagged[wrong] == kind].tolist() for kind in (False, True)]
    kept = {row for rows in kinds for row in spread(names, rows, most)}
    return [row for row in wrong.tolist() if row in kept]


def save_mistakes(folder: Path, crops: Manifest, p: np.ndarray, threshold: float) -> list[dict]:
    """Write the pictures of the worst mistakes into `folder`; return what the page says of them."""
    shutil.rmtree(folder / "mistakes", ignore_errors=True)
    (folder / "mistakes").mkdir()
    shown = []
    for number, row in enumerate(worst_mistakes(crops.names, crops.targets, p, threshold)):
        image = read_image(crops.image_path(row), crops.place(row))
        image.thumbnail((PICTURE, PICTURE))
        name, file = Path(crops.names[row]).name, f"mistakes/{number}.jpg"
        with atomic_write(folder / file, "wb") as out:
            image.save(out, "JPEG", quality=90)
        group = "missed" if crops.targets[row] else "flagged"
        shown.append(
            {"file": file, "name": name, "view": view_of(name), "p": float(p[row]), "group": group}
        )
    return shown
