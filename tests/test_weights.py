"""Weights that are found, fetched, checked and tried; nothing bad is put in place."""

import hashlib
import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from local_server import local_server

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.download import fetch
from human_anomaly.data.download.fetch import FetchError
from human_anomaly.models import weights
from human_anomaly.models.classifier import AnomalyClassifier, shape_of
from human_anomaly.tools import fetch_weights
from human_anomaly.utils import UsageError

SMALL = """
DATA: {IMG_SIZE: 32}
MODEL: {VIT: {EMBED_DIM: 16, DEPTH: 1, NUM_HEADS: 2}}
"""


def classifier_bytes(folder: Path, bias: float) -> bytes:
    """Return a small classifier in the released files' layout: two logits."""
    (folder / "small.yaml").write_text(SMALL)
    state = AnomalyClassifier(**shape_of(get_config(folder / "small.yaml"))).state_dict()
    state["head.weight"] = torch.zeros(2, 16)
    state["head.bias"] = torch.full((2,), bias)
    torch.save({"model": state, "epoch": 29}, folder / "human.pth")
    return (folder / "human.pth").read_bytes()


@pytest.fixture(scope="module")
def human_bytes(tmp_path_factory):
    return classifier_bytes(tmp_path_factory.mktemp("human"), 0.0)


@pytest.fixture(scope="module")
def face_bytes(tmp_path_factory):
    return classifier_bytes(tmp_path_factory.mktemp("face"), 1.0)


@pytest.fixture
def world(tmp_path, monkeypatch, human_bytes):
    """A server that has human.pth, a project folder, and a table that expects small files."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.setattr(weights, "RELEASE_CONFIG", str(tmp_path / "small.yaml"))
    monkeypatch.setenv("VBENCH2_CACHE_DIR", str(tmp_path / "shared"))
    size = len(human_bytes) / 1e6
    for part in ("human", "face"):
        entry = replace(weights.WEIGHTS[part], size_mb=(size - 1e-5, size + 1e-5))
        monkeypatch.setitem(weights.WEIGHTS, part, entry)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the libraries' attempts

    def no_drive(file_id, path):
        raise FetchError("Google Drive: not in this test")

    monkeypatch.setattr(fetch_weights, "from_drive", no_drive)
    with local_server({"human.pth": human_bytes}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.root = tmp_path
        server.target = tmp_path / "checkpoint/release/human.pth"
        yield server


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def leftovers(world) -> list[str]:
    return [p.name for p in world.root.rglob("*") if ".download" in p.parts and p.is_file()]


def set_human(monkeypatch, **changes):
    monkeypatch.setitem(weights.WEIGHTS, "human", replace(weights.WEIGHTS["human"], **changes))


@pytest.fixture
def on_the_hub(monkeypatch, human_bytes):
    """Have the human classifier on the hub, with a known hash, as the detector is."""
    sha = hashlib.sha256(human_bytes).hexdigest()
    set_human(monkeypatch, hub_repo="owner/repo", sha256=sha)


def test_mirror(world, human_bytes):
    line = fetch_weights.get_weight("human", world.url, world.root)
    assert world.target.read_bytes() == human_bytes
    assert line.startswith("fetched, ") and leftovers(world) == []
    size, _, sha256 = weights.read_lock(world.root)["human"]
    assert (size, sha256) == (len(human_bytes), hashlib.sha256(human_bytes).hexdigest())


@pytest.mark.parametrize("mood", ["good", "breaks once"])
def test_hub(world, on_the_hub, human_bytes, mood):
    world.mood = mood
    fetch_weights.get_weight("human", None, world.root)
    assert world.target.read_bytes() == human_bytes and leftovers(world) == []


# The server's mood, where from, what the error says.
LIES = [
    ("truncates", "mirror", ["truncated: expected "]),
    ("breaks off", "mirror", ["truncated: expected |IncompleteRead"]),
    ("page", "mirror", ["a web page came instead of the file"]),
    ("lies", "mirror", ["SHA-256 .*, expected "]),
    ("absent", "mirror", ["--mirror: HTTPError: HTTP Error 404"]),
    ("truncates", "hub", ["truncated: expected ", "Google Drive: not in this test"]),
    ("lies", "hub", ["SHA-256 .*, expected ", "Google Drive: not in this test"]),
    ("absent", "hub", ["owner/repo: RemoteEntryNotFoundError", "Google Drive: not in this test"]),
    ("down", "hub", ["owner/repo: LocalEntryNotFoundError", "Google Drive: not in this test"]),
]


@pytest.mark.parametrize(("mood", "kind", "words"), LIES)
def test_bad_files_are_named_and_not_put_in_place(world, on_the_hub, mood, kind, words):
    world.mood = mood
    files = dict(world.files)
    if mood == "absent":
        world.files.clear()
    mirror = world.url if kind == "mirror" else None
    with pytest.raises(FetchError, match="; ".join(f".*({word}).*" for word in words)) as error:
        fetch_weights.get_weight("human", mirror, world.root)
    assert "\n" not in str(error.value)
    assert not world.target.exists() and not (world.root / weights.LOCK).exists()
    world.mood, world.files = "good", files  # a later try is not harmed by what came before
    assert fetch_weights.get_weight("human", mirror, world.root).startswith("fetched")


def test_drive_helps_where_the_hub_does_not(world, on_the_hub, human_bytes, monkeypatch, caplog):
    world.mood = "truncates"
    monkeypatch.setattr(fetch_weights, "from_drive", lambda _, path: path.write_bytes(human_bytes))
    assert fetch_weights.get_weight("human", None, world.root).startswith("fetched")
    assert "human.pth: truncated: expected" in caplog.text
    assert world.target.read_bytes() == human_bytes


def test_same_size_other_content_is_refused_after_first_success(world, human_bytes):
    fetch_weights.get_weight("human", world.url, world.root)
    world.target.unlink()
    world.mood = "lies"
    with pytest.raises(
        FetchError, match=r"SHA-256 is .*weights.lock.json recorded .*; delete its entry"
    ):
        fetch_weights.get_weight("human", world.url, world.root)
    assert not world.target.exists()


def test_a_lock_file_of_earlier_versions_counts(world, human_bytes):
    entry = {"bytes": len(human_bytes), "sha256": "0" * 64}
    put(world.root / weights.LOCK, json.dumps({"human": entry, "checked": {}}).encode())
    with pytest.raises(FetchError, match=r"weights.lock.json recorded 0000.*; delete its entry"):
        fetch_weights.get_weight("human", world.url, world.root)


def test_right_size_that_does_not_load_is_refused(world, monkeypatch):
    world.files["human.pth"] = b"PK" + b"\0" * 4000
    set_human(monkeypatch, size_mb=None)
    with pytest.raises(FetchError, match=r"does not load: .*human\.pth"):
        fetch_weights.get_weight("human", world.url, world.root)


def test_bad_file_in_place_stays_until_a_good_one_came(world, human_bytes):
    put(world.target, human_bytes[:1000])
    world.mood = "truncates"
    with pytest.raises(FetchError):
        fetch_weights.get_weight("human", world.url, world.root)
    assert world.target.read_bytes() == human_bytes[:1000]
    world.mood = "good"
    fetch_weights.get_weight("human", world.url, world.root)
    assert world.target.read_bytes() == human_bytes


def test_file_in_place_is_checked_and_not_fetched(world, human_bytes):
    put(world.target, human_bytes)
    assert fetch_weights.get_weight("human", world.url, world.root).startswith("in place and good")
    assert world.offsets == []
    assert "human" in weights.read_lock(world.root)


def test_a_lock_file_that_cannot_be_read_is_named(world):
    put(world.root / weights.LOCK, b"{")
    with pytest.raises(UsageError, match=r"weights\.lock\.json: cannot read the lock file"):
        fetch_weights.get_weight("human", world.url, world.root)


def test_command_says_what_to_do_by_hand(world, monkeypatch, capsys):
    monkeypatch.setenv("HUMAN_ANOMALY_HOME", str(world.root))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch_weights.main(["scoring", "human"]) == 1
    error = capsys.readouterr().err
    assert [line.split(":")[1] for line in error.splitlines() if line.startswith("error:")] == [
        " detector",
        " human",
        " face",
        " hand",
    ]
    assert "error: hand: Google Drive: not in this test" in error
    assert "open https://drive.google.com/file/d/1j3QeAcAtdLe5BFgK-c33UaHV6-iUto0i/view in" in error
    assert f"save the file as {world.root / 'checkpoint/release/hand.pth'} and run this" in error
    assert "https://huggingface.co/wondervictor/YOLO-World/blob/main/yolo_world_v2_xl" in error
    assert "--mirror URL_OR_FOLDER" in error
    assert fetch_weights.main(["human", "--mirror", world.url]) == 0
    assert capsys.readouterr().out.startswith("human: fetched, ")


def test_real_gdown_without_a_way_out_is_one_line(world, monkeypatch):
    pytest.importorskip("gdown")
    # A closed port as proxy: gdown's real failure, and no traffic leaves this machine.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(fetch_weights, "from_drive", fetch.from_drive)
    with pytest.raises(FetchError, match=r"^Google Drive: ProxyError: ") as error:
        fetch_weights.get_weight("human", None, world.root)
    assert "\n" not in str(error.value)


def test_release_names_what_is_missing(world):
    names = ("detector", "human", "face", "hand")
    with pytest.raises(UsageError, match=r"detector human face hand") as error:
        weights.release_files(world.root, names)
    assert "tools.fetch_weights" in str(error.value)
    for weight in weights.WEIGHTS.values():
        put(world.root / weight.path, b"")
    found = weights.release_files(world.root, names)
    assert found["face"] == world.root / "checkpoint/release/face.pth"


def test_released_sizes():
    """The figures users reported: 346.8 MB is whole; 92 and 167 MB are not."""
    low, high = weights.WEIGHTS["human"].size_mb
    assert low <= 346.8 <= high and not low <= 167 <= high
    assert Path("pretrain") in weights.WEIGHTS["simmim"].path.parents


def test_what_vbench2_fetched_is_used_where_it_is(world, human_bytes, caplog):
    caplog.set_level(logging.INFO)
    shared = put(world.root / "shared/anomaly_detector/human.pth", human_bytes)
    assert (
        fetch_weights.get_weight("human", None, world.root)
        == f"used where it is, and good: {shared}"
    )
    assert weights.release_files(world.root, ["human"]) == {"human": shared}
    assert world.offsets == [] and not world.target.exists()
    assert caplog.text.count(f"found {shared}, checking it") == 1  # not again at each start
    os.utime(shared, ns=(1, 1))
    assert weights.find_weight("human", world.root) == shared
    assert caplog.text.count("checking it") == 2
    assert set(json.loads((world.root / weights.LOCK).read_text())) == {"human"}


def test_the_projects_own_file_comes_first(world, human_bytes, face_bytes):
    put(world.root / "shared/anomaly_detector/human.pth", face_bytes)
    put(world.target, human_bytes)
    assert weights.find_weight("human", world.root) == world.target


def test_home_is_searched_where_no_folder_is_named(world, human_bytes, monkeypatch):
    monkeypatch.delenv("VBENCH2_CACHE_DIR")
    monkeypatch.setenv("HOME", str(world.root))
    shared = put(world.root / ".cache/vbench2/anomaly_detector/human.pth", human_bytes)
    assert weights.find_weight("human", world.root) == shared


def test_shared_detector_is_checked_by_its_hash(world, caplog):
    name = weights.WEIGHTS["detector"].path.name
    put(world.root / "shared/YOLO-World" / name, b"another")
    assert weights.find_weight("detector", world.root) is None
    assert f"{name}: SHA-256 " in caplog.text and "it is not used" in caplog.text


def test_classifiers_written_over_each_other_are_not_used(world, human_bytes, face_bytes, caplog):
    folder = world.root / "shared/anomaly_detector"
    put(folder / "human.pth", human_bytes)
    put(folder / "face.pth", human_bytes)
    with pytest.raises(UsageError, match=r"missing weights: .*human\.pth, .*face\.pth;"):
        weights.release_files(world.root, ["human", "face"])
    assert "same content as face.pth, so one was written over the other" in caplog.text
    assert "same content as human.pth, so one was written over the other" in caplog.text
    put(folder / "face.pth", face_bytes)
    assert weights.find_weight("human", world.root) == folder / "human.pth"
    assert weights.find_weight("face", world.root) == folder / "face.pth"


def test_shared_file_that_is_truncated_is_not_used(world, human_bytes, caplog):
    put(world.root / "shared/anomaly_detector/human.pth", human_bytes[:500])
    assert weights.find_weight("human", world.root) is None
    assert "truncated: expected" in caplog.text
    assert fetch_weights.get_weight("human", world.url, world.root).startswith("fetched")
