"""Fetch, unpack and check the public data set (VBench-2.0 human anomaly), ready for training.

    python -m tools.vbench2_data VBench-2.0_human_anomaly              # its archives are there
    python -m tools.vbench2_data VBench-2.0_human_anomaly --download   # fetches them first

Unpacks `opensource.z01 .. opensource.zip` and then `dataset/all_images.zip` without the zip or
unzip programs, verifies the lists, names missing images, and writes `dataset/dataset.json`.
Run it again after an interruption or a repaired download: it continues.
"""

import argparse
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.data.dataset import row_problem
from human_anomaly.data.download.archive import refuse_lfs_pointer, unpack
from human_anomaly.data.download.fetch import FetchError, data_set_from_hub
from human_anomaly.utils import (
    UsageError,
    atomic_write,
    command_parser,
    run_main,
    setup_logging,
    stream_jsonl,
    write_json,
)

logger = logging.getLogger(__name__)

REPO = "Vchitect/VBench-2.0_human_anomaly"
LISTS = tuple(f"{part}_{split}" for part in BASE_PARTS for split in ("train", "test"))
COUNTS = dict(zip(LISTS, (73_366, 1_984, 30_020, 181, 39_848, 142), strict=True))
VIDEO_FOLDERS = ("CogVideo", "CogVideo-1.0", "vad_real")
BY_HAND = (
    f"by hand (git lfs install; git clone https://huggingface.co/datasets/{REPO}), or from the "
    "Google Drive folder 1_NyiLa861EbDQdDp4Lsy4jTzH2ynCiFw"
)
HOW_TO_FETCH = f"fetch it with --download, or {BY_HAND}"


def download(folder: Path) -> None:
    """Fetch the archives into `folder`; `folder/revision.txt` then names their revision."""
    try:
        revision = data_set_from_hub(REPO, folder)
    except FetchError as error:
        raise UsageError(
            f"--download: {error}; run the same command again to continue, or {BY_HAND}"
        ) from error
    (folder / "revision.txt").write_text(f"{REPO} {revision}\n")


def has_lists(folder: Path) -> bool:
    """Return whether all six lists are in `folder`; raises UsageError for an LFS pointer."""
    paths = [folder / f"{name}.jsonl" for name in LISTS]
    for path in paths:
        if path.is_file():
            refuse_lfs_pointer(path)
    return all(path.is_file() for path in paths)


def bring_files(folder: Path, archive: Path) -> list[Path]:
    """Unpack the archive and the `dataset/all_images.zip` in it; return the archives' pieces.

    Either may be missing if its files are there. Files that are there already are kept.
    """
    dataset, used = folder / "dataset", []
    if archive.is_file() or archive.with_suffix(".z01").is_file():
        used += unpack(archive, folder, "opensource/")
    elif not has_lists(dataset):
        raise UsageError(
            f"{folder}: expected {archive.name} (with its pieces .z01, ..) or the lists "
            f"dataset/human_train.jsonl, ..; {HOW_TO_FETCH}"
        )
    images = dataset / "all_images.zip"
    if images.is_file():
        used += unpack(images, dataset / "all_images", "all_images/")
    elif not (dataset / "all_images").is_dir():
        raise UsageError(f"{dataset}: expected all_images.zip or all_images/; {HOW_TO_FETCH}")
    return used


def list_images(folder: Path) -> set[str]:
    """Return the names below `folder`, with forward slashes, empty files left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return {path.relative_to(folder).as_posix() for path in files}


def check_list(path: Path, images: set[str]) -> tuple[int, Counter, list[str]]:
    """Return a list's number of lines, its labels' counts and the missing images.

    Raises UsageError that names the line of a row that training would refuse.
    """
    rows = list(stream_jsonl(path))
    for line, row in rows:
        if problem := row_problem(row):
            raise UsageError(f"{path}:{line}: {problem}")
    missing = [row[0] for _, row in rows if str(PurePosixPath(row[0])) not in images]
    return len(rows), Counter(row[1] for _, row in rows), missing


def verify(folder: Path, expected: Mapping[str, int]) -> bool:
    """Check counts and images of the unpacked data set, and return whether all is there."""
    dataset = folder / "dataset"
    images = list_images(dataset / "all_images")
    good, missing, used = True, [], 0
    for name, count in expected.items():
        path = dataset / f"{name}.jsonl"
        if not path.is_file():
            logger.error(f"{path}: missing")
            good = False
            continue
        lines, labels, absent = check_list(path, images)
        missing += absent
        used += lines - len(absent)
        note = "" if lines == count else f"; expected {count:,}"
        logger.log(
            logging.ERROR if note else logging.INFO,
            f"{name}: {lines:,} images, {labels[0]:,} abnormal, {labels[1]:,} normal{note}",
        )
        good = good and not note
    report = folder / "missing_images.txt"
    if missing:
        with atomic_write(report) as file:
            file.writelines(f"{name}\n" for name in missing)
        logger.error(
            f"{len(missing):,} images are missing, the first is {missing[0]}: see {report}"
        )
    else:
        report.unlink(missing_ok=True)
    logger.info(f"{len(images):,} images in all_images/, {used:,} lines of the lists found theirs")
    for name in VIDEO_FOLDERS:
        place = folder / "src_video" / name
        count = sum(len(files) for _, _, files in os.walk(place))
        logger.info(f"src_video/{name}: {count:,} files (not needed for training)")
    return good and not missing


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__, "tools.vbench2_data")
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="the data set's folder")
    text = "fetch the archives from Hugging Face first (HF_ENDPOINT names a mirror)"
    add("--download", action="store_true", help=text)
    add("--archive", type=Path, help="last piece of the archive (default: DIR/opensource.zip)")
    text = "delete the archives if the data set is complete"
    add("--remove-archives", action="store_true", help=text)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, expected: Mapping[str, int] = COUNTS) -> int:
    """Run the command line; returns 1 when something is missing or miscounted, else 0."""
    args = parse_args(argv)
    setup_logging()
    if args.download:
        download(args.folder)
    if not args.folder.is_dir():
        raise UsageError(f"{args.folder}: no such folder; {HOW_TO_FETCH}")
    try:
        archives = bring_files(args.folder, args.archive or args.folder / "opensource.zip")
    except OSError as error:
        raise UsageError(f"cannot unpack: {error}") from error
    complete = verify(args.folder, expected)
    # Training looks for this file beside the lists. In this data set, label 0 means abnormal.
    write_json(args.folder / "dataset" / "dataset.json", {"abnormal_label": 0}, indent=None)
    if not complete:
        logger.error("the data set is not complete: fetch what is named above, run this again")
        return 1
    if args.remove_archives:
        for path in archives:
            path.unlink()
    elif archives:
        size = sum(path.stat().st_size for path in archives) / 1e9
        logger.info(f"archives hold {size:.1f} GB; --remove-archives deletes them")
    logger.info(f"complete: train with --train-path {args.folder}/dataset/hand_train.jsonl")
    return 0


if __name__ == "__main__":
    run_main(main)
