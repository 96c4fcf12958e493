"""The labels that a person gave to crops: from folders, CSV files and the label page's JSON."""

from collections.abc import Iterable
from pathlib import Path

from human_anomaly.configs.defaults import PARTS
from human_anomaly.data.cropping.crop_lists import (
    LABELS,
    LABELS_FILE,
    Crop,
    by_decision,
    find_crops,
)
from human_anomaly.utils import UsageError, parse_csv, parse_json

WORDS = {"": None, "0": 0, "1": 1, **LABELS}  # what a label may be


def read_text(path: Path) -> str:
    """Return the file's text; a byte order mark, as spreadsheets write it, is left out."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read as UTF-8 text: {error}") from error


def read_csv(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return (place, {column: text}) of a CSV with commas, semicolons or tabs.

    Without a header, the columns are file and label.
    """
    text = read_text(path)
    first = text.split("\n", 1)[0]
    columns, rows = ["file", "label"], []
    for line, cells in parse_csv(text, str(path), max(",;\t", key=first.count)):
        words = [cell.strip() for cell in cells]
        place = f"{path}:{line}"
        if line == 1 and {"file", "label"} <= {word.lower() for word in words}:
            columns = [word.lower() for word in words]
        elif any(words):
            if len(words) < 2:
                raise UsageError(f"{place}: expected file,label; got {words[0]}")
            rows.append((place, dict(zip(columns, words, strict=False))))
    return rows


def read_json(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return (place, {"file", "label"}) of the label page's file: {"hand/NAME.jpg": 0 or 1}."""
    labels = parse_json(read_text(path), str(path))
    if not isinstance(labels, dict):
        raise UsageError(f'{path}: expected {{"hand/NAME.jpg": 0 or 1, ..}}')
    return [(str(path), {"file": file, "label": str(label)}) for file, label in labels.items()]


def add_votes(path: Path, crops: dict[str, dict[str, Crop]], only: str | None = None) -> list[str]:
    """Add the labels in a CSV or JSON file to `crops`; return its mistakes, each with its place."""
    mistakes = []
    for place, row in read_json(path) if path.suffix.lower() == ".json" else read_csv(path):
        file = row.get("file", "").replace("\\", "/").removeprefix("./")
        name, top = file.rsplit("/", 1)[-1], file.split("/")[0]
        part = only or row.get("part") or (top if "/" in file and top in PARTS else None)
        owners = [p for p in ([part] if part in PARTS else PARTS) if name in crops[p]]
        try:
            label = WORDS[row.get("label", "").strip().lower()]
        except KeyError:
            mistakes.append(
                f"{place}: label is {row['label']!r}, expected 0, 1, normal, abnormal or nothing"
            )
            continue
        if part not in (None, "", *PARTS) or not owners:
            mistakes.append(f"{place}: no such crop: {file}")
        elif len(owners) > 1:
            mistakes.append(
                f"{place}: {file} is in {' and '.join(owners)}: write {owners[0]}/{name}"
            )
        elif label is not None:
            crops[owners[0]][name].votes.append((label, place.removeprefix(f"{path.parent}/")))
    return mistakes


def share_votes(crops: Iterable[Crop]) -> None:
    """Give the crops without a vote one that their decision has, if its votes agree."""
    for together in by_decision(crops):
        votes = [vote for crop in together for vote in crop.votes]
        if len({label for label, _ in votes}) == 1:
            for crop in together:
                crop.votes = crop.votes or votes[:1]


def collect(folder: Path, given: Path | None = None) -> tuple[dict[str, list[Crop]], list[str]]:
    """Return {part: crops, sorted by name, with their votes} and the mistakes in the labels."""
    crops, unknown = find_crops(folder)
    mistakes = [f"{folder}/{file}: not a crop of {folder}/boxes.jsonl" for file in unknown]
    usual = [folder / "labels.csv", folder / LABELS_FILE]
    sheets = [(path, None) for path in ([given] if given else usual)]
    sheets += [(folder / f"{part}.csv", part) for part in PARTS]
    for path, part in sheets:
        if path == given or path.is_file():
            mistakes += add_votes(path, crops, part)
    for known in crops.values():
        share_votes(known.values())
    kept = {
        part: [crop for _, crop in sorted(known.items()) if crop.places]
        for part, known in crops.items()
    }
    return kept, mistakes
