"""The page on which a person labels crops: contact sheets in one HTML file beside the crops."""

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from human_anomaly.configs.places import tool
from human_anomaly.data.cropping.crop_lists import Crop, by_decision, source_of
from human_anomaly.utils import UsageError, atomic_write

PICTURES = "label_pictures"
PROBABILITIES_FILE = "p_abnormal.json"  # {"hand/NAME.jpg": p}, written by tools/label.py


def read_probabilities(folder: Path) -> dict[str, float]:
    """Return {"hand/NAME.jpg": p(abnormal)} of the crops that a classifier has judged."""
    path = folder / PROBABILITIES_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(file): float(p) for file, p in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f'{path}: expected {{"hand/NAME.jpg": p, ..}}: {error}') from error


def write_page(folder: Path, crops: dict[str, list[Crop]]) -> tuple[Path, int]:
    """Write label.html for unlabelled crops, likely anomalies first; return (path, rows)."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    p = read_probabilities(folder)
    parts = {}
    for part, found in crops.items():
        # Without a label, or with only the page's own, which labels.json holds.
        is_open = [c.label is None and all(w.endswith(".json") for _, w in c.votes) for c in found]
        shown = [_row(together, p) for together in by_decision(compress(found, is_open))]
        if shown:
            parts[part] = sorted(shown, key=lambda row: 1 if row["p"] is None else -row["p"])
    rows = [row for part in parts.values() for row in part]
    keep_pictures(folder, rows)
    labels = json.dumps({row["file"]: row["label"] for row in rows if row["label"] is not None})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # keeps the order of parts
    page = environment.get_template("label_page.html").render(
        name=folder.resolve().name,
        command=f"{tool('label')} {shlex.quote(str(folder))}",
        parts=parts,
        has_p=any(row["p"] is not None for row in rows),
        version=hashlib.sha256(labels.encode()).hexdigest()[:16],
    )
    path = folder / "label.html"
    with atomic_write(path) as file:
        file.write(page)
    return path, len(rows)


def keep_pictures(folder: Path, rows: Sequence[dict]) -> None:
    """Link the rows' crops into label_pictures/, where the page finds them after a move."""
    shutil.rmtree(folder / PICTURES, ignore_errors=True)
    for row in rows:
        source, target = folder / row.pop("now"), folder / row["place"]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # no hard links here
            shutil.copyfile(source, target)


def _row(crops: list[Crop], p: dict[str, float]) -> dict:
    """Return the page's row of one decision: its crop with the highest p, or its middle one."""
    middle = len(crops) // 2
    files = {f"{crop.part}/{crop.name}": crop for crop in crops[middle:] + crops[:middle]}
    file = max(files, key=lambda file: p.get(file, -1.0))
    crop = files[file]
    video = source_of(crop.name) or crop.name
    more = f", one label for {len(crops)} crops" if len(crops) > 1 else ""
    return {
        "file": file,
        "now": f"{crop.part}/{crop.place()}",
        "place": f"{PICTURES}/{file}",
        "video": video,
        "view": crop.name.removeprefix(f"{video}_") + more,
        "p": p.get(file),
        "label": crop.verdict(),
    }
