"""Real weights in one command: fetched, checked, tried and moved in place at once.

    python -m models.weights all                          # from Google Drive, with gdown
    python -m models.weights human --mirror https://.../  # from a server that has the same names
    python -m models.weights all --mirror /mnt/weights    # from a folder

Run again = continue. A file that is in place already is checked and kept.
"""

import argparse
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from models.download import DownloadError, fetch, only_one
from utils import UsageError, run_main, setup_logging, write_json

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path("pretrain/weights.lock.json")
RELEASE_CONFIG = "configs/vbench2_release.yaml"
RELEASE_DETECTOR_CONFIG = (
    "third_party/YOLO-World/"
    "yolo_world_v2_xl_vlpan_bn_2e-3_100e_4x8gpus_obj365v1_goldg_train_lvis_minival.py"
)


@dataclass(frozen=True)
class Weight:
    """One public file: where it goes (below the project's folder), and what is known of it."""

    path: Path
    drive_id: str
    sha_prefix: str = ""
    size_mb: tuple[float, float] | None = None  # least and most, in 10^6 bytes


def _released(part: str, drive_id: str) -> Weight:
    # 85,763,522 float32 parameters and twelve index buffers are 346.8 MB.
    return Weight(Path(f"checkpoint/release/{part}.pth"), drive_id, size_mb=(346.5, 347.5))


WEIGHTS = {
    "detector": Weight(
        Path("pretrain/yolo_world_v2_xl_obj365v1_goldg_cc3mlite_pretrain-5daf1395.pth"),
        "1qo-K1kum7yiEwIlN1TWDvABXX6qriUen",
        sha_prefix="5daf1395",
    ),
    "human": _released("human", "1mlSURYOi_vN9ST1wzEhJaVO6-ZoES8UT"),
    "face": _released("face", "1e2qTjrtsYlkWLql0qj8DqaNZ09KuV8Qo"),
    "hand": _released("hand", "1j3QeAcAtdLe5BFgK-c33UaHV6-iUto0i"),
    "simmim": Weight(
        Path("pretrain/simmim_pretrain__vit_base__img224__800ep.pth"),
        "1dJn6GYkwMIcoP3zqOEyW1_iQfpBi8UOw",
    ),
}


class BadFile(Exception):
    """A file that is not the one wanted; the message says what was expected and what came."""


def release_files(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the released files of these `names` (detector, human, face, hand).

    Raises UsageError naming those that are missing and the command that fetches them.
    """
    paths = {name: root / WEIGHTS[name].path for name in names}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        where = ", ".join(str(paths[name]) for name in missing)
        raise UsageError(
            f"--release: missing weights: {where}; fetch them with "
            f"`make weights` (or `python -m models.weights {' '.join(missing)}`)"
        )
    return paths


@dataclass(frozen=True)
class Weights:
    """The files that a run scores with; `models` maps each judged part to its checkpoint."""

    cfg: str | None
    detector_config: str
    detector_weights: str
    models: dict[str, str]


def choose_weights(
    *,
    parts: Sequence[str],
    cfg: str | None = None,
    detector_config: str | None = None,
    detector_weights: str | None = None,
    models: Mapping[str, str | None] = MappingProxyType({}),
    release: bool = False,
    root: Path = ROOT,
) -> Weights:
    """Return the files that are named; the demo's where no weight is named.

    Raises UsageError naming the missing flags, or the released files that are needed and missing.
    """
    given = {part: models.get(part) for part in parts}
    named = [detector_config, detector_weights, *given.values()]
    if release:
        chosen = {"detector": detector_weights, **given}
        needed = [name for name, file in chosen.items() if not file]
        chosen |= {name: str(path) for name, path in release_files(root, needed).items()}
        return Weights(
            cfg or str(root / RELEASE_CONFIG),
            detector_config or str(root / RELEASE_DETECTOR_CONFIG),
            chosen["detector"],
            {part: chosen[part] for part in parts},
        )
    if not any(named):
        logger.info("no weights given: using the demo's, which know drawn people only")
        demo = root / "demo" / "weights"
        return Weights(
            cfg or str(root / "configs" / "demo" / "demo.yaml"),
            str(root / "configs" / "demo" / "yolo_world_demo.py"),
            str(demo / "detector.pth"),
            {part: str(demo / f"{part}.pth") for part in parts},
        )
    flags = ["--detector_config", "--detector_weights", *(f"--{p}_model" for p in given)]
    missing = [flag for flag, value in zip(flags, named, strict=True) if not value]
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: missing; give all of {', '.join(flags)}, or fewer --parts"
        )
    return Weights(cfg, detector_config, detector_weights, given)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_lock(root: Path) -> dict:
    path = root / LOCK
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: cannot read the lock file: {error}") from error


def check_bytes(path: Path, weight: Weight, locked: dict | None) -> dict:
    """Return {"bytes", "sha256"} of `path`; raises BadFile where size or hash is another.

    `locked` is what an earlier success recorded, or None.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if head[:1] == b"<":
        raise BadFile(f"a web page came instead of the file ({size / 1e6:.1f} MB)")
    if locked and size != locked["bytes"]:
        raise BadFile(f"expected {locked['bytes']:,} bytes as recorded in {LOCK}, found {size:,}")
    if weight.size_mb and not weight.size_mb[0] <= size / 1e6 <= weight.size_mb[1]:
        middle = sum(weight.size_mb) / 2
        what = "truncated" if size / 1e6 < middle else "too long"
        raise BadFile(f"{what}: expected {middle:.0f} MB, found {size / 1e6:.1f} MB")
    sha = _sha256(path)
    if not sha.startswith(weight.sha_prefix):
        raise BadFile(
            f"expected a SHA-256 that starts with {weight.sha_prefix}, found {sha[:8]} "
            f"({size / 1e6:.1f} MB: damaged, truncated or another file)"
        )
    if locked and sha != locked["sha256"]:
        raise BadFile(
            f"SHA-256 is {sha[:16]}, recorded in {LOCK} is {locked['sha256'][:16]} "
            "(delete its entry there if the file was published anew)"
        )
    return {"bytes": size, "sha256": sha}


def try_to_load(name: str, path: Path) -> None:
    """Load `path` as scoring and training would; raises models.checkpoint.CheckpointError."""
    from configs.defaults import get_config
    from models.classifier import build_classifier, load_classifier, load_pretrained

    config = get_config(ROOT / RELEASE_CONFIG)
    if name == "detector":
        from models.detector import PartDetector

        PartDetector(ROOT / RELEASE_DETECTOR_CONFIG, path, "cpu")
    elif name == "simmim":
        load_pretrained(build_classifier(config), path)
    else:
        load_classifier(path, config, "cpu")


def _verify(name: str, path: Path, locked: dict | None) -> dict:
    """Return what the lock file records of `path`; raises BadFile where any check fails."""
    from models.checkpoint import CheckpointError

    found = check_bytes(path, WEIGHTS[name], locked)
    try:
        try_to_load(name, path)
    except CheckpointError as error:
        raise BadFile(f"does not load: {error}") from error
    return found


def _record(name: str, found: dict, root: Path) -> None:
    lock = _read_lock(root)
    if lock.get(name) != found:
        (root / LOCK).parent.mkdir(parents=True, exist_ok=True)
        write_json(root / LOCK, {**lock, name: found})


def by_hand(name: str, root: Path) -> str:
    """Return how a person without a working download gets the file in place."""
    weight = WEIGHTS[name]
    return (
        f"By hand: open https://drive.google.com/file/d/{weight.drive_id}/view in a browser "
        f"(or `gdown {weight.drive_id}` on another machine), save the file as "
        f"{root / weight.path} and run this command again: it will be checked. "
        "From a copy nearby: --mirror URL_OR_FOLDER."
    )


def get_weight(name: str, mirror: str | None = None, root: Path = ROOT) -> str:
    """Have the file `name` in place, checked, and return one line on what was done.

    Raises DownloadError or BadFile; a file that was in place before is then still there.
    """
    weight = WEIGHTS[name]
    target = root / weight.path
    locked = _read_lock(root).get(name)
    if target.is_file():
        try:
            found = _verify(name, target, locked)
        except BadFile as error:
            logger.warning("%s: %s: %s; fetching it again", name, target, error)
        else:
            _record(name, found, root)
            return f"in place and good: {target}"
    folder = target.parent / ".download" / name
    with only_one(folder):
        part = folder / target.name
        fetch(mirror, target.name, weight.drive_id, part)
        try:
            found = _verify(name, part, locked)
        except BadFile:
            part.unlink()  # nothing to build on: the next try starts anew
            raise
        part.replace(target)
        _record(name, found, root)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()  # others may still be under way in it
    return f"fetched, {found['bytes'] / 1e6:.1f} MB, checked, loads: {target}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=[*WEIGHTS, "all"], help="which files to fetch")
    parser.add_argument("--mirror", help="URL or folder that holds the files (default: Drive)")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="folder that gets pretrain/ and checkpoint/"
    )
    args = parser.parse_args()
    setup_logging()
    names = list(WEIGHTS) if "all" in args.names else list(dict.fromkeys(args.names))
    failed = 0
    for name in names:
        try:
            print(f"{name}: {get_weight(name, args.mirror, args.root)}", flush=True)
        except (BadFile, DownloadError) as error:
            failed += 1
            print(f"error: {name}: {error}", file=sys.stderr)
            print(f"  {by_hand(name, args.root)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
