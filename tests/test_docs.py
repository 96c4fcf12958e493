"""Every command of the README and of docs/ works as it is written.

A page's commands run one after the other in a folder that has small files in the places which the
page names. Commands that need a network or minutes are compared with what they say by --help.
"""

import csv
import re
import shutil
import subprocess
import tomllib

import pytest
from conftest import ROOT, YAML
from docs_runs import CONSOLE, blocks, commands, help_of, main_of, module_of
from videos import encode

from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, WEIGHTS
from human_anomaly.models.weights import WEIGHTS as RELEASED
from human_anomaly.utils import read_jsonl

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Compared with --help, because they need a network, a port that is free, minutes, or a launcher.
ONLY_HELP = {
    *("serve", "tools.fetch_weights", "tools.vbench2_data", "tools.sensitivity"),
    "tools.reproduce",
}
STAND_INS = {
    "CONFIG": DETECTOR_CONFIG,
    "WEIGHTS": WEIGHTS / "detector.pth",
    "HAND.pth": WEIGHTS / "hand.pth",
}
PARTS = ("human", "face", "hand")
DEMO = ["--cfg", CONFIG, "--detector-config", DETECTOR_CONFIG]
DEMO += ["--detector-weights", WEIGHTS / "detector.pth"]
DEMO += [word for part in PARTS for word in (f"--{part}-model", WEIGHTS / f"{part}.pth")]
PROMPT = "a person waves"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, clip_of_people):
    """Four videos of two frames: the demo's, and the same mirrored."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in ("hand_fused", "normal_1"):
        frames = clip_of_people(name, 2)[..., ::-1]
        for number, some in enumerate((frames, frames[:, :, ::-1])):
            encode(folder / f"{name}_{number}.mp4", some)
    return folder


@pytest.fixture
def place(drawn, tmp_path, monkeypatch):
    """The folder in which a page's commands run, with small files where the page names some."""
    folder = tmp_path / "place"
    shutil.copytree(drawn, folder / "videos")
    (folder / "demo/videos").mkdir(parents=True)
    shutil.copy(drawn / "normal_1_0.mp4", folder / "demo/videos/normal_1.mp4")
    (folder / "hubconf.py").symlink_to(ROOT / "hubconf.py")
    sampled = folder / "sampled/mymodel"
    sampled.mkdir(parents=True)
    for number, name in enumerate(("normal_1_0", "normal_1_1", "hand_fused_0")):
        shutil.copy(drawn / f"{name}.mp4", sampled / f"{PROMPT}-{number}.mp4")
    (folder / "prompts.txt").write_text(PROMPT + "\n")
    small = folder / YAML.relative_to(ROOT)
    small.parent.mkdir(parents=True)
    settings = "DATA: {BATCH_SIZE: 8, NUM_WORKERS: 0}\nTRAIN: {EPOCHS: 1, WARMUP_EPOCHS: 0}\n"
    small.write_text(f"BASE: ['{CONFIG}']\n{settings}")
    for part in PARTS:
        for path in (f"checkpoint/release/{part}.pth", f"checkpoint/{part}/ckpt29.pth"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(WEIGHTS / f"{part}.pth", folder / path)
    (folder / "preferences.csv").write_text(
        "video_a,video_b,winner\nhand_fused_0.mp4,normal_1_0.mp4,b\n"
    )
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for what runs a script of ours
    return folder


def prepare(module: str, words: list[str], place) -> None:
    """Do what a page tells its reader to do by hand before a command."""
    if module == "tools.label" and words == ["crops"]:  # label the crops
        rows = [
            (f"{part}/{name}", ("normal", "abnormal")["fused" in name])
            for part in PARTS
            for name, *_ in read_jsonl(place / f"crops/{part}.jsonl")
        ]
        with (place / "crops/labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *rows])
    if module == "main_finetune":
        shutil.rmtree(place / "checkpoint/hand")  # which holds no run
    if module == "tools.compare" and not (place / "results/before").exists():
        shutil.copytree(place / "results/mymodel", place / "results/before")


def run(words: list[str], place, monkeypatch) -> None:
    """Run one of our commands in the place, or compare it with its --help."""
    launched = words[0] == "torchrun" or "--ray" in words
    module, words = module_of(words)
    if launched or module in ONLY_HELP:
        flags = {word for word in words if word.startswith("--")}
        known = set(re.findall(r"--[a-z][a-z0-9_-]*", help_of(module, monkeypatch)))
        assert flags <= known, f"{module}: no flag {flags - known}"
        return
    prepare(module, words, place)
    if module == "tools.vbench2" and "--videos" in words:
        words += DEMO  # instead of the released weights
    if module == "tools.label" and "--hand-model" in words:
        words += DEMO[:2]
    words = [str(STAND_INS.get(word, word)) for word in words if word != "--release"]
    monkeypatch.setattr("sys.argv", [module, *words])
    assert main_of(module)() in ((0, 3) if "--min-score" in words else (0,)), words


def check_other(words: list[str], place) -> None:
    """Check a command of another program as far as it names something of ours."""
    if words[0] == "make":
        done = subprocess.run(["make", "-n", words[1]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif words[0] == "pip":
        [what] = words[2:]
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert re.fullmatch(r"\.\[(.*)\]", what)[1] in extras["optional-dependencies"]
    elif words[0] == "gdown":
        assert (words[1], words[3]) in {(w.drive_id, str(w.path)) for w in RELEASED.values()}
    else:
        assert words[0] == "curl" or words[:2] == ["vbench2", "evaluate"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page(page, place, tmp_path, monkeypatch):
    found = [c for text in blocks(page, "") for c in commands(text, tmp_path / "stubs")]
    for words in found:
        if words[0] in ("python", "torchrun", *CONSOLE):
            run(words, place, monkeypatch)
        else:
            check_other(words, place)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page(page, place):
    for text in blocks(page, "python"):
        exec(compile(text, page.name, "exec"), {})


def test_each_page_has_what_the_tests_look_for():
    """A block with another mark, or commands in another form, would be passed over."""
    for page in PAGES:
        marks = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
        assert set(marks[::2]) <= {"", "text", "python", "bash", "bibtex"} and len(marks) % 2 == 0
    assert sum(len(blocks(page, "")) for page in PAGES) >= 15
