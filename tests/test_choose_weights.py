"""Which files a scoring run takes: the demo's, those named, the released ones."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

from human_anomaly import inference
from human_anomaly.configs.defaults import PARTS
from human_anomaly.models.weights import WEIGHTS, choose_weights
from human_anomaly.utils import UsageError


@pytest.fixture(autouse=True)
def no_shared_files(monkeypatch, tmp_path):
    monkeypatch.setenv("VBENCH2_CACHE_DIR", str(tmp_path / "none"))


def chosen(root: Path, *flags: str):
    args = inference.parse_args(list(flags))
    return choose_weights(
        parts=args.parts,
        cfg=args.cfg,
        detector_config=args.detector_config,
        detector_weights=args.detector_weights,
        models={part: getattr(args, f"{part}_model") for part in PARTS},
        release=args.release,
        root=root,
    )


def place(root: Path, *names: str) -> None:
    for name in names:
        (root / WEIGHTS[name].path).parent.mkdir(parents=True, exist_ok=True)
        (root / WEIGHTS[name].path).touch()


def test_release_takes_what_make_weights_puts_in_place(tmp_path):
    place(tmp_path, "detector", "human", "face", "hand")
    found = chosen(tmp_path, "--release")
    assert Path(found.detector_weights) == tmp_path / WEIGHTS["detector"].path
    assert found.models == {p: str(tmp_path / WEIGHTS[p].path) for p in ("human", "face", "hand")}
    for path in (found.cfg, found.detector_config):  # tracked files of the project
        assert Path(path).is_file() and Path(path).is_relative_to(ROOT)


def test_flags_come_before_the_release(tmp_path):
    place(tmp_path, "detector", "hand")
    flags = ("--cfg", "c.yaml", "--human_model", "a.pth", "--face_model", "b.pth")
    found = chosen(tmp_path, "--release", *flags)
    released = str(tmp_path / WEIGHTS["hand"].path)
    assert found.models == {"human": "a.pth", "face": "b.pth", "hand": released}
    assert found.cfg == "c.yaml"


# What is in place, the flags, the files that the error names.
MISSING = [
    ((), (), ("detector", "human", "face", "hand")),
    (("detector", "human"), (), ("face", "hand")),
    (("detector",), ("--parts", "face"), ("face",)),  # other parts are not needed
    (("face",), ("--face_model", "f.pth"), ("detector", "human", "hand")),
    ((), ("--detector_weights", "d.pth", "--parts", "hand"), ("hand",)),
]


@pytest.mark.parametrize(("there", "flags", "missing"), MISSING)
def test_release_names_the_files_that_are_needed_and_missing(tmp_path, there, flags, missing):
    place(tmp_path, *there)
    with pytest.raises(UsageError, match=r"^--release: missing weights: ") as error:
        chosen(tmp_path, "--release", *flags)
    named = ", ".join(str(tmp_path / WEIGHTS[name].path) for name in missing)
    assert re.search(f"weights: {re.escape(named)};", str(error.value))
    assert f"python -m tools.fetch_weights {' '.join(missing)}`" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_any_weight_flag_the_demo_is_taken():
    found = chosen(ROOT, "--parts", "human", "hand")
    files = (found.cfg, found.detector_config, found.detector_weights, *found.models.values())
    assert list(found.models) == ["human", "hand"]
    assert all(Path(file).is_file() for file in files)
