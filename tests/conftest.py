"""What tests share: reference weights and figures, and inputs for the scripts."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
GOLDENS = ROOT / "tests" / "goldens"
for folder in (ROOT, GOLDENS):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

YAML = ROOT / "configs/vit_base__800ep/simmim_finetune__vit_base__img224__800ep.yaml"
RELEASE_YAML = ROOT / "configs/vbench2_release.yaml"


def detector_config(size: str) -> Path:
    """Return the path of YOLO-World v2's config of `size` (s, m, l, x, xl)."""
    name = f"yolo_world_v2_{size}_vlpan_bn_2e-3_100e_4x8gpus_obj365v1_goldg_train_lvis_minival.py"
    return ROOT / "third_party/YOLO-World" / name


def golden(name: str) -> dict:
    """Return the reference values in tests/goldens/`name`."""
    return json.loads((GOLDENS / name).read_text())


@pytest.fixture(scope="session")
def clip() -> Path:
    """The real clip; not tracked, so tests that need it skip where it is absent."""
    for path in (GOLDENS / "clip.mp4", ROOT.parent / "shared/goldens/clip.mp4"):
        if path.is_file():
            return path
    pytest.skip("clip.mp4 is not here")


@pytest.fixture(scope="session")
def clip_of_people():
    """Return a function: a demo video's name and a number of frames to these, (T, H, W, 3) RGB."""
    import itertools

    import numpy as np

    from human_anomaly.data.video import FrameReader, Source

    def read(name: str, count: int) -> np.ndarray:
        reader = FrameReader(Source(ROOT / f"demo/videos/{name}.mp4", name))
        frames = [frame.image[..., ::-1] for frame in itertools.islice(reader, count)]
        return np.ascontiguousarray(np.stack(frames))

    return read


@pytest.fixture(scope="session")
def golden_weights(tmp_path_factory):
    """Return a function: an expected-values file's name to a folder with its four checkpoints."""
    import make_checkpoints

    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        weights = golden(name)["weights"]
        key = json.dumps(weights, sort_keys=True)  # the scene's two files share their weights
        if key not in folders:
            folder = tmp_path_factory.mktemp("weights")
            state = make_checkpoints.detector_state("s", weights, GOLDENS)
            torch.save({"meta": {}, "state_dict": state}, folder / "detector.pth")
            for part in ("human", "face", "hand"):
                state = make_checkpoints.classifier_state(part, weights)
                torch.save({"model": state, "epoch": 29}, folder / f"{part}.pth")
            folders[key] = folder
        return folders[key]

    return write


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Drawn crops of hands, and the YAML of a very small classifier, for main_finetune.py."""
    from finetune_runs import write_data

    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """The folder of an unbroken run of main_finetune.py."""
    from finetune_runs import finetune

    return finetune(data, tmp_path_factory.mktemp("finished") / "hand")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Six videos of noise, for preprocess.py."""
    from preprocess_runs import write_videos

    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file in place of the detector's weights, for preprocess.py with the fake detector."""
    path = tmp_path_factory.mktemp("weights") / "detector.pth"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def crop(weights, monkeypatch):
    """Return a function that runs preprocess.py here, with the fake detector."""
    from preprocess_runs import flags, use_fake_detector

    from human_anomaly import preprocess

    use_fake_detector(monkeypatch)

    def run(videos, output: Path, *more: str) -> int:
        return preprocess.main(flags(videos, output, weights, *more))

    return run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built without network from a copy of what git tracks."""
    import subprocess
    import tarfile

    from test_other_programs import pip

    folder = tmp_path_factory.mktemp("wheel")
    archive = folder / "tree.tar"
    names = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    with tarfile.open(archive, "w") as tar:
        for name in names:
            if (ROOT / name).is_file():
                tar.add(ROOT / name, name)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "tree", filter="data")
    pip("wheel", folder / "tree", "--no-deps", "--no-build-isolation", "-w", folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A folder with the first frames of two of the demo's videos, of different length."""
    import cv2
    from inference_runs import VIDEOS

    folder = tmp_path_factory.mktemp("short")
    for name, count in (("normal_1", 3), ("hand_fused", 5)):
        reader = cv2.VideoCapture(str(VIDEOS / f"{name}.mp4"))
        (folder / name).mkdir()
        for i in range(count):
            cv2.imwrite(str(folder / name / f"{i}.png"), reader.read()[1])
        reader.release()
    return folder


@pytest.fixture
def crop_folder(tmp_path) -> Path:
    """Return what preprocess.py leaves: eight crops of hands and eight of faces, unlabelled."""
    import numpy as np
    from label_runs import NAMES
    from PIL import Image

    from human_anomaly.utils import write_jsonl

    boxes = []
    for part in ("human", "face", "hand"):
        (tmp_path / part).mkdir()
    for part in ("face", "hand"):
        for i, name in enumerate(NAMES):
            tone = np.full((20, 30, 3), 30 * i, np.uint8)
            Image.fromarray(tone).save(tmp_path / part / name)
            row = {"source": name[0], "score": i / 8, "label": None, "file": f"{part}/{name}"}
            boxes.append(row)
    boxes.append({"source": "a", "score": 0.2, "label": None, "file": None})  # under --min-size
    write_jsonl(tmp_path / "boxes.jsonl", boxes)
    return tmp_path
