"""The page on which a person labels crops: contact sheets in one HTML file beside the crops."""

import hashlib
import json
import shlex
from itertools import compress
from pathlib import Path

from human_anomaly.configs.places import tool
from human_anomaly.data.cropping.crop_lists import Crop, source_of
from human_anomaly.utils import UsageError, atomic_write

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
    """Write label.html for crops without a label, likely anomalies first; return it and a count."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    p = read_probabilities(folder)
    parts = {}
    for part, found in crops.items():
        # Without a label, except perhaps the page's own in labels.json.
        is_open = [c.label is None and all(w.endswith(".json") for _, w in c.votes) for c in found]
        shown = [_row(c, p.get(f"{part}/{c.name}")) for c in compress(found, is_open)]
        if shown:
            parts[part] = sorted(shown, key=lambda row: 1 if row["p"] is None else -row["p"])
    rows = [row for part in parts.values() for row in part]
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


def _row(crop: Crop, p: float | None) -> dict:
    video = source_of(crop.name) or crop.name
    return {
        "file": f"{crop.part}/{crop.name}",
        "place": f"{crop.part}/{crop.place()}",
        "video": video,
        "view": crop.name.removeprefix(f"{video}_"),
        "p": p,
        "label": crop.verdict(),
    }
