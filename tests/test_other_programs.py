"""A program that has modules named like ours: clone, hub and wheel leave it its own."""

import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

VIDEO = ROOT / "demo/videos/hand_fused.mp4"
SCORE = 0.5  # of every 8th frame of it, with the demo's weights

PROGRAM = """
import sys
before = list(sys.path)
{load}
import utils, data.mine, models.mine, configs.mine
for module in (utils, data.mine, models.mine, configs.mine):
    assert module.OWNER == "the program", module
result = scorer.score("{video}")
import utils, data.mine  # again, after all of ours was imported
assert utils.OWNER == data.mine.OWNER == "the program"
left = [path for path in sys.path if path not in before]
assert all("setuptools" in path for path in left), left  # mmengine's pkg_resources does that
names = {{"utils", "data", "models", "configs", "data.mine", "models.mine", "configs.mine"}}
ours = {{n for n in sys.modules if n.split(".")[0] in ("utils", "data", "models", "configs")}}
assert ours == names, ours
print(result.summary["video_results"])
"""
HUB = """import torch
scorer = torch.hub.load({root!r}, "human_anatomy", source="local", weights="demo", device="cpu",
                        stride=8)"""
PACKAGE = """from human_anomaly.hubconf import human_anatomy
scorer = human_anatomy("demo", device="cpu", stride=8)"""


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The folder of a program with modules of its own."""
    folder = tmp_path_factory.mktemp("program")
    for name in ("data", "models", "configs"):
        (folder / name).mkdir()
        (folder / name / "mine.py").write_text('OWNER = "the program"\n')
    (folder / "utils.py").write_text('OWNER = "the program"\n')
    return folder


def pip(*words, python: Path | None = None) -> None:
    chosen = ["--python", str(python)] if python else []
    command = [sys.executable, "-m", "pip", *chosen, *map(str, words), "-q", "--no-index"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def new_python(folder: Path) -> Path:
    """Return the Python of a new environment, which finds this one's packages, too."""
    venv.create(folder, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "these.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin/python"


def run(python, folder: Path, *words, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, *map(str, words)],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_hub_from_a_clone(program):
    load = HUB.format(root=str(ROOT))
    code = PROGRAM.format(load=load, video=VIDEO)
    assert float(run(sys.executable, program, "-c", code)) == SCORE


def test_import_from_a_clone(program):
    code = PROGRAM.format(load=PACKAGE, video=VIDEO)
    assert float(run(sys.executable, program, "-c", code, PYTHONPATH=str(ROOT))) == SCORE


def test_installed_wheel(program, wheel, tmp_path):
    """Import, command and module, from a folder that also holds a clone named like the package."""
    python = new_python(tmp_path / "venv")
    pip("install", wheel, "--no-deps", python=python)
    (program / "human_anomaly").mkdir(exist_ok=True)  # hides a package without __init__.py
    (program / "human_anomaly/inference.py").write_text("raise AssertionError('of the clone')")
    code = PROGRAM.format(load=PACKAGE, video=VIDEO)
    assert float(run(python, program, "-c", code)) == SCORE
    # The project's files are found by their names from any folder.
    flags = ["--cfg", "configs/demo/demo.yaml"]
    flags += ["--detector-config", "configs/demo/yolo_world_demo.py"]
    for name in ("detector-weights", "human-model", "face-model", "hand-model"):
        flags += [f"--{name}", f"demo/weights/{name.split('-')[0]}.pth"]
    flags += ["--video", VIDEO, "--frame-stride", "8", "--device", "cpu"]
    flags += ["--output", tmp_path / "out"]
    run(python.with_name("human-anomaly"), program, *flags)
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["mean"]["video_results"] == SCORE
    said = run(python, program, "-m", "human_anomaly.tools.label", "--help")
    assert said.startswith("usage: python -m human_anomaly.tools.label ")
    said = run(python, program, "-m", "human_anomaly.inference", "--version")
    assert said.startswith("human-anomaly 0.")
    where = "import human_anomaly.configs.places as p; print(p.home(), p.tool('label'))"
    said = run(python, program, "-c", where, HOME="/somewhere").split(maxsplit=1)
    assert said == ["/somewhere/.cache/human_anomaly", "python -m human_anomaly.tools.label\n"]
    named = run(python, program, "-c", where, HUMAN_ANOMALY_HOME="/elsewhere").split()
    assert named[0] == "/elsewhere"


def test_wheel_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        text = files.read(next(n for n in names if n.endswith("METADATA"))).decode()
    needed = [line.split()[1] for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    wanted = [line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    wanted = [line.split(">")[0].split("<")[0] for line in wanted if not line.startswith("#")]
    assert len(wanted) > 10
    for name in wanted:
        assert any(
            n.replace("-", "_").lower().startswith(name.lower().replace("-", "_")) for n in needed
        ), name
    for extra in ("weights", "ray", "tensorboard", "dev"):
        assert f"Provides-Extra: {extra}" in text
    assert not [n for n in names if not n.startswith(("human_anomaly/", "human_anomaly-"))]


def test_editable_install(tmp_path):
    python = new_python(tmp_path / "venv")
    pip("install", "-e", ROOT, "--no-deps", "--no-build-isolation", python=python)
    code = "from human_anomaly.configs.places import ROOT; print(ROOT)"
    assert run(python, tmp_path, "-c", code).strip() == str(ROOT)


@pytest.mark.parametrize("script", ["inference.py", "preprocess.py", "main_finetune.py"])
def test_scripts_say_their_version(script, tmp_path):
    said = run(sys.executable, tmp_path, ROOT / script, "--version")
    assert said.startswith("human-anomaly 0.") and len(said.splitlines()) == 1
