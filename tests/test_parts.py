"""The table of parts: what a line more in it adds, and what it leaves as it was."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_detector import _FakePredictor, _found

from human_anomaly import inference
from human_anomaly.configs import parts
from human_anomaly.configs.parts import PARTS, TABLE, Part
from human_anomaly.models import detector
from human_anomaly.models.detector import prompt_set
from human_anomaly.models.weights import choose_weights
from human_anomaly.utils import UsageError

FOOT = Part("foot", "hand", 0.32, "person")
CHILD = Part("child", "child", 0.4, "frame")


def test_the_lines_of_the_table_can_be_flags_folders_and_settings():
    assert len(set(PARTS)) == len(PARTS) and TABLE[0].found_in == "frame"
    for part in TABLE:
        assert re.fullmatch("[a-z][a-z0-9_]*", part.name) and 0 <= part.threshold <= 1
        assert part.found_in in ("frame", "person") and part.text.strip()


# The lines added, the parts that are judged; the prompts of both passes.
PROMPTS = [
    ((), ("hand",), ["human", " "], ["face", "hand", " "]),
    ((FOOT, CHILD), ("human", "face", "hand"), ["human", " "], ["face", "hand", " "]),
    ((FOOT,), ("foot",), ["human", " "], ["face", "hand", " "]),  # "hand" is sent once
    (
        (Part("toe", "a toe", 0.5, "person"),),
        ("toe",),
        ["human", " "],
        ["face", "hand", "a toe", " "],
    ),
    ((CHILD,), ("child",), ["human", "child", " "], ["face", "hand", " "]),
]


@pytest.mark.parametrize(("lines", "judged", "people", "others"), PROMPTS)
def test_texts_are_sent_once_and_only_for_parts_in_use(monkeypatch, lines, judged, people, others):
    add_lines(monkeypatch, *lines)
    used = parts.used_parts(judged)
    assert list(prompt_set(used, "frame")) == people
    assert list(prompt_set(used, "person")) == others
    further = {part.name: part.text for part in lines if part.name in judged}
    known = {"human": "human", "face": "face", "hand": "hand"}
    assert parts.other_texts(used) == ({"texts": known | further} if further else {})


def add_lines(monkeypatch, *lines: Part) -> None:
    table = (*TABLE, *lines)
    monkeypatch.setattr(parts, "TABLE", table)
    monkeypatch.setattr(detector, "TABLE", table)
    monkeypatch.setattr(parts, "PARTS", tuple(part.name for part in table))


@pytest.mark.parametrize("keep_padding_class", [True, False])
def test_boxes_of_one_text_go_to_all_of_its_parts(monkeypatch, keep_padding_class):
    add_lines(monkeypatch, FOOT, CHILD)
    human, child, blank = ((label, (10 * label, 10, 50, 60)) for label in range(3))
    monkeypatch.setattr(_FakePredictor, "people", _found(child, human, blank))
    monkeypatch.setattr(_FakePredictor, "parts", _found((1, (4, 4, 9, 9)), (0, (1, 1, 5, 5))))
    monkeypatch.setattr(detector, "Predictor", _FakePredictor)
    options = {"parts": (*PARTS, "foot", "child"), "keep_padding_class": keep_padding_class}
    (found,) = detector.PartDetector("c", "w", **options).detect([np.zeros((99, 99, 3), np.uint8)])
    names = [[part.part for part in person.parts] for person in found.people]
    kinds = ["child", "human", *["human"] * keep_padding_class]
    assert names == [[kind, "face", "hand", "foot"] for kind in kinds]
    assert all(one.parts[2].square == one.parts[3].square for one in found.people)


@pytest.mark.parametrize(
    ("release", "models", "message"),
    [
        (False, {}, "--detector_config, --detector_weights, --foot_model: missing"),
        (True, {"hand": "h.pth"}, "--foot_model: missing; no such checkpoint is released"),
    ],
)
def test_a_part_without_a_checkpoint_is_named(release, models, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        choose_weights(parts=["foot"], models=models, release=release)


DETECTOR = ("--detector-config", "configs/demo/yolo_world_demo.py")
DETECTOR += ("--detector-weights", "demo/weights/detector.pth")
CLIP = ("demo/videos/hand_fused.mp4", "--frame-stride", "24")
SCORE = (*DETECTOR, "--cfg", "configs/demo/demo.yaml", "--video", *CLIP)
THREE = [w for p in ("human", "face", "hand") for w in (f"--{p}-model", f"demo/weights/{p}.pth")]
LISTS = ("--train-path", "crops/foot.jsonl", "--val-path", "crops/foot.jsonl")
TRAIN = ("--cfg", "configs/demo/demo.yaml", "--part", "foot", *LISTS, "--batch-size", "4")
PROGRAM = f"""
import json
from pathlib import Path
from human_anomaly import inference, main_finetune, preprocess
from human_anomaly.tools import label
three, foot = {[*SCORE, *THREE]}, ["--foot-model", "demo/weights/hand.pth"]
assert inference.main([*three, "--output", "three"]) == 0
assert inference.main([*three, *foot, "--report", "--output", "four"]) == 0
assert inference.main([*{SCORE}, *foot, "--parts", "foot", "--output", "alone"]) == 0
assert preprocess.main([*{DETECTOR}, "--input", *{CLIP}, "--output", "crops"]) == 0
assert label.main(["crops", "--page"]) == 0
names = sorted(path.name for path in Path("crops/foot").iterdir())
labels = {{f"foot/{{name}}": n % 2 for n, name in enumerate(names)}}
Path("crops/labels.json").write_text(json.dumps(labels))
assert label.main(["crops"]) == 0
assert main_finetune.main([*{TRAIN}, "--output", "trained", "--dry-run"]) == 0
"""


@pytest.fixture(scope="module")
def foot(tmp_path_factory):
    """A copy of the tree with one more line in the table, in which PROGRAM ran."""
    command = ["git", "-C", ROOT, "ls-files", "-zco", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
    tree = tmp_path_factory.mktemp("tree")
    for name in names:
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    table = (tree / "configs/parts.py").read_text()
    line = 'Part("foot", "hand", 0.32, "person"),'
    (tree / "configs/parts.py").write_text(table.replace("\n)\n", f"\n    {line}\n)\n", 1))
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return tree


def rows(folder) -> list[dict]:
    text = (folder / "hand_fused.frames.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def boxes(folder, *names: str) -> list[list[dict]]:
    """Return each person's boxes of the parts `names`, without the names."""
    people = [person for row in rows(folder) for person in row["people"]]
    return [
        [{k: v for k, v in p.items() if k != "part"} for p in person["parts"] if p["part"] in names]
        for person in people
    ]


def test_three_models_give_the_same_bytes_with_a_fourth_line(foot, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert inference.main([*SCORE, *THREE, "--output", str(tmp_path)]) == 0
    name = "hand_fused.frames.jsonl"
    assert (tmp_path / name).read_bytes() == (foot / "three" / name).read_bytes()
    both = [json.loads((f / "scores.json").read_text()) for f in (tmp_path, foot / "three")]
    for scores in both:
        scores["videos"][0].pop("seconds")
    assert json.dumps(both[0]) == json.dumps(both[1])
    assert list(both[0]["videos"][0]["abnormal_by_part"]) == ["human", "face", "hand"]


def test_one_line_and_a_checkpoint_judge_feet(foot):
    scores = json.loads((foot / "four/scores.json").read_text())
    shares = scores["videos"][0]["abnormal_by_part"]
    assert list(shares) == ["human", "face", "hand", "foot"]
    assert shares["foot"] == shares["hand"] > 0
    assert scores["settings"]["thresholds"]["FOOT"] == 0.32
    assert scores["settings"]["texts"]["foot"] == "hand"
    found = boxes(foot / "four", "foot")
    assert found == boxes(foot / "four", "hand") and any(found)
    others = [boxes(foot / run, "human", "face", "hand") for run in ("three", "four")]
    assert others[0] == others[1]  # no text was added to the prompts
    pages = [page.read_text() for page in (foot / "four/report").rglob("index.html")]
    assert len(pages) == 2 and all(">foot</b>" in page for page in pages)


def test_feet_alone_are_judged(foot):
    scores = json.loads((foot / "alone/scores.json").read_text())
    shares = scores["videos"][0]["abnormal_by_part"]
    assert shares["hand"] is None and shares["foot"] > 0
    assert boxes(foot / "alone", "foot") == boxes(foot / "four", "foot")
    assert not any(boxes(foot / "alone", "human", "face", "hand"))


def test_feet_are_cropped_and_labelled(foot):
    crops = foot / "crops"
    hands, feet = (sorted(p.read_bytes() for p in (crops / x).iterdir()) for x in ("hand", "foot"))
    assert hands == feet and feet
    listed = [json.loads(line) for line in (crops / "foot.jsonl").read_text().splitlines()]
    assert {label for _, label, _ in listed} == {0, 1} and len(listed) == len(feet)
    assert (crops / "overview_foot.jpg").is_file()
    assert '"foot/' in (crops / "label.html").read_text()
