"""The released weights: where they lie, how they are checked, and which files a run uses."""

import filecmp
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.parts import BASE_PARTS, used_parts
from human_anomaly.configs.places import ROOT, home, tool
from human_anomaly.data.download.fetch import FetchError
from human_anomaly.data.runs.marks import file_stamp, is_same_file, mark
from human_anomaly.utils import UsageError, write_json

logger = logging.getLogger(__name__)

LOCK = Path("pretrain/weights.lock.json")
DEMO_WARNING = "demo weights: scores of other videos mean nothing"
RELEASE_CONFIG = "configs/vbench2_release.yaml"
RELEASE_DETECTOR_CONFIG = (
    "third_party/YOLO-World/"
    "yolo_world_v2_xl_vlpan_bn_2e-3_100e_4x8gpus_obj365v1_goldg_train_lvis_minival.py"
)


@dataclass(frozen=True)
class PublicFile:
    """A public file: its place, its sources, and how it is checked."""

    path: Path  # below the project's folder
    drive_id: str
    hub_repo: str = ""
    sha256: str = ""
    size_mb: tuple[float, float] | None = None  # least and most, in 10^6 bytes


def _released(part: str, drive_id: str) -> PublicFile:
    # 85,763,522 float32 parameters and twelve index buffers are 346.8 MB.
    return PublicFile(Path(f"checkpoint/release/{part}.pth"), drive_id, size_mb=(346.5, 347.5))


WEIGHTS = {
    "detector": PublicFile(
        Path("pretrain/yolo_world_v2_xl_obj365v1_goldg_cc3mlite_pretrain-5daf1395.pth"),
        "1qo-K1kum7yiEwIlN1TWDvABXX6qriUen",
        hub_repo="wondervictor/YOLO-World",
        sha256="5daf1395eb25b6f5adf27781022add7f20b70afdb107e725ccffc5ecc471dc7d",
    ),
    "human": _released("human", "1mlSURYOi_vN9ST1wzEhJaVO6-ZoES8UT"),
    "face": _released("face", "1e2qTjrtsYlkWLql0qj8DqaNZ09KuV8Qo"),
    "hand": _released("hand", "1j3QeAcAtdLe5BFgK-c33UaHV6-iUto0i"),
    "simmim": PublicFile(
        Path("pretrain/simmim_pretrain__vit_base__img224__800ep.pth"),
        "1dJn6GYkwMIcoP3zqOEyW1_iQfpBi8UOw",
    ),
}


@dataclass(frozen=True)
class ChosenFiles:
    """The files with which a run scores; `models` maps each judged part to its checkpoint."""

    cfg: str | None
    detector_config: str
    detector_weights: str
    models: dict[str, str]


def choose_weights(
    *,
    parts: Sequence[str] | None = None,
    cfg: str | None = None,
    detector_config: str | None = None,
    detector_weights: str | None = None,
    models: Mapping[str, str | None],
    release: bool = False,
    root: Path | None = None,
) -> ChosenFiles:
    """Return the files with which to judge `parts`: those given, the released ones, or the demo's.

    `models` maps parts to checkpoints, or to None where none is given. Without `parts`, the base
    parts are judged, and others whose checkpoint is given. Without `release`, the demo's are used
    where no weights are given at all. Raises UsageError, which names missing flags or files.
    """
    parts = parts or used_parts([part for part, file in models.items() if file])
    given = {part: models.get(part) for part in parts}
    root = root or home()
    named = [detector_config, detector_weights, *given.values()]
    if release:
        chosen = {"detector": detector_weights, **given}
        needed = [name for name, file in chosen.items() if not file]
        if lacking := [f"--{name}_model" for name in needed if name not in WEIGHTS]:
            raise UsageError(f"{', '.join(lacking)}: missing; no such checkpoint is released")
        chosen |= {name: str(path) for name, path in release_files(root, needed).items()}
        return ChosenFiles(
            cfg or str(ROOT / RELEASE_CONFIG),
            detector_config or str(ROOT / RELEASE_DETECTOR_CONFIG),
            chosen["detector"],
            {part: chosen[part] for part in parts},
        )
    if not any(named) and set(parts) <= set(BASE_PARTS):
        logger.info("no weights given: using the demo's, which can judge drawings only")
        demo = ROOT / "demo" / "weights"
        return ChosenFiles(
            cfg or str(ROOT / "configs" / "demo" / "demo.yaml"),
            str(ROOT / "configs" / "demo" / "yolo_world_demo.py"),
            str(demo / "detector.pth"),
            {part: str(demo / f"{part}.pth") for part in parts},
        )
    flags = ["--detector_config", "--detector_weights", *(f"--{part}_model" for part in given)]
    missing = [flag for flag, value in zip(flags, named, strict=True) if not value]
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: missing; give all of {', '.join(flags)}, or fewer --parts"
        )
    return ChosenFiles(cfg, detector_config, detector_weights, given)


def demo_warnings(files: Iterable[str], digests: Iterable[str | None]) -> list[str]:
    """Return DEMO_WARNING in a list if the demo's weights scored other videos than the demo's.

    `files` are the weights, `digests` the SHA-256 of the scored videos.
    """
    demo = ROOT / "demo"
    weights = list((demo / "weights").glob("*.pth"))
    if not any(is_same_file(file, own) for file in files for own in weights):
        return []
    own = {mark(path)[2] for path in (demo / "videos").glob("*.mp4")}
    return [] if own.issuperset(digests) else [DEMO_WARNING]


def release_files(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the paths of the released files `names`; raises UsageError naming missing ones."""
    paths = {name: find_weight(name, root) for name in names}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        where = ", ".join(str(root / WEIGHTS[name].path) for name in missing)
        raise UsageError(
            f"--release: missing weights: {where}; fetch them with "
            f"`{tool('fetch_weights')} {' '.join(missing)}`; without --release (in Python "
            'weights="demo") the demo\'s are taken, which judge drawings only'
        )
    return paths


def find_weight(name: str, root: Path) -> Path | None:
    """Return the project's file `name`, else VBench-2.0's if that is good, else None."""
    path = root / WEIGHTS[name].path
    return path if path.is_file() else good_shared_file(name, root)


def _shared_file(name: str) -> Path | None:
    """Return VBench-2.0's own copy of the file `name`, or None."""
    folder = Path(os.environ.get("VBENCH2_CACHE_DIR") or "~/.cache/vbench2").expanduser()
    files = sorted(folder.glob("anomaly_detector/*.pth"))
    names = {path: [part for part in BASE_PARTS if part in path.stem.lower()] for path in files}
    names[folder / "YOLO-World" / WEIGHTS["detector"].path.name] = ["detector"]
    return next((p for p, found in names.items() if found == [name] and p.is_file()), None)


def good_shared_file(name: str, root: Path) -> Path | None:
    """Return VBench-2.0's copy if it passes the checks; the lock file remembers that it did."""
    path = _shared_file(name)
    if path is None:
        return None
    locked = read_lock(root).get(name)
    if locked and locked[:2] == file_stamp(path)[1:]:
        return path
    logger.info(f"{name}: found {path}, checking it")
    try:
        for other in BASE_PARTS:
            twin = _shared_file(other)
            if name != other and twin is not None and filecmp.cmp(path, twin, shallow=False):
                raise FetchError(f"same content as {twin.name}, so one was written over the other")
        record(root, name, verify(name, path, locked))
    except FetchError as error:
        logger.warning(f"{name}: {path}: {error}; it is not used")
        return None
    return path


def read_lock(root: Path) -> dict[str, list]:
    """Return the marks of the files that were good, by name."""
    path = root / LOCK
    try:
        lock = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        # Earlier versions wrote {"bytes": .., "sha256": ..}.
        old = {k: [v["bytes"], None, v["sha256"]] for k, v in lock.items() if "sha256" in v}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: cannot read the lock file: {error}; delete it") from error
    return {name: found for name, found in (lock | old).items() if name in WEIGHTS}


def record(root: Path, name: str, found: list) -> None:
    """Write a mark to the lock file, or warn where the project's folder cannot be written."""
    try:
        (root / LOCK).parent.mkdir(parents=True, exist_ok=True)
        write_json(root / LOCK, {**read_lock(root), name: found})
    except OSError as error:
        logger.warning(f"cannot record what was checked: {error}")


def check_bytes(path: Path, weight: PublicFile, locked: list | None) -> list:
    """Return the `mark` of the file; raises FetchError where its size or hash is wrong.

    `locked` is the mark of an earlier good file in the lock file, or None.
    """
    size, _, sha = found = mark(path)
    with path.open("rb") as file:
        if file.read(64).lstrip().startswith(b"<"):
            raise FetchError(f"a web page came instead of the file ({size / 1e6:.1f} MB)")
    if weight.size_mb and not weight.size_mb[0] <= size / 1e6 <= weight.size_mb[1]:
        what = "truncated" if size / 1e6 < weight.size_mb[0] else "too long"
        raise FetchError(f"{what}: expected {weight.size_mb[0]} MB, found {size / 1e6:.1f} MB")
    if weight.sha256 and sha != weight.sha256:
        raise FetchError(f"SHA-256 {sha[:16]}.., expected {weight.sha256[:16]}.. ({size:,} bytes)")
    if locked and sha != locked[2]:
        raise FetchError(
            f"SHA-256 is {sha[:16]}.. ({size:,} bytes), {LOCK} recorded {locked[2][:16]}.. "
            f"({locked[0]:,} bytes); delete its entry there if a new file was published"
        )
    return found


def verify(name: str, path: Path, locked: list | None) -> list:
    """Check `path`, then load it as scoring and training do; return its `mark`.

    Raises FetchError where any check fails.
    """
    from human_anomaly.models.checkpoint import CheckpointError
    from human_anomaly.models.classifier import (
        AnomalyClassifier,
        load_classifier,
        load_pretrained,
        shape_of,
    )

    found = check_bytes(path, WEIGHTS[name], locked)
    config = get_config(ROOT / RELEASE_CONFIG)
    try:
        if name == "detector":
            from human_anomaly.models.detector import PartDetector

            PartDetector(ROOT / RELEASE_DETECTOR_CONFIG, path, "cpu")
        elif name == "simmim":
            if not load_pretrained(AnomalyClassifier(**shape_of(config)), path):
                raise CheckpointError("expected SimMIM's pre-training file, found a classifier")
        else:
            load_classifier(path, config, "cpu")
    except CheckpointError as error:
        raise FetchError(f"does not load: {error}") from error
    return found
