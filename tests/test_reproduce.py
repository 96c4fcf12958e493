"""What `make reproduce` runs, compares, and misses."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from human_anomaly.models.weights import WEIGHTS
from human_anomaly.tools import reproduce
from human_anomaly.tools.vbench2 import run as vbench2
from human_anomaly.tools.vbench2.evaluation import PUBLISHED


@pytest.fixture
def args(tmp_path):
    return Namespace(
        data=tmp_path / "data",
        clip=None,
        videos=None,
        output=tmp_path / "out",
        root=tmp_path / "root",
    )


def items_of(args):
    return [
        reproduce.clip_item(args),
        *(reproduce.accuracy_item(args, part) for part in reproduce.ACCURACY),
        *(reproduce.table_item(args, model) for model in PUBLISHED),
    ]


def put_everything(args):
    for weight in WEIGHTS.values():
        (args.root / weight.path).parent.mkdir(parents=True, exist_ok=True)
        (args.root / weight.path).touch()
    (args.data / "dataset").mkdir(parents=True)
    for part in reproduce.ACCURACY:
        (args.data / "dataset" / f"{part}_test.jsonl").touch()
    (args.data / "src_video").mkdir()
    (args.data / "src_video" / reproduce.CLIP).touch()
    args.videos = args.data / "models"
    for name in ("hunyuan_video", "kling-1.6", "sora-480P", "CogVideoX1.5"):
        (args.videos / name).mkdir(parents=True)
        (args.videos / name / reproduce.CLIP).touch()


def test_with_nothing_here_everything_missing_is_named_once(args, capsys):
    assert reproduce.reproduce(items_of(args)) == 8
    lines = capsys.readouterr().out.splitlines()
    missing = [line.strip() for line in lines[lines.index("missing:") + 1 : -2]]
    assert len(missing) == len(set(missing)) == 4 + 1 + 3 + 4
    assert missing[1].startswith(str(args.root / "checkpoint/release/human.pth"))
    assert any("'people are walking.-1.mp4' below" in line for line in missing)
    assert any("hand_test.jsonl (142 test crops" in line for line in missing)
    assert any(line.startswith("Kling 1.6's videos") for line in missing)


def replace_scripts(monkeypatch, function):
    """Call `function` where a script would run: here, and where a model's folder is scored."""
    for module in (reproduce, vbench2):
        monkeypatch.setattr(module, "run_script", function)


def test_with_everything_here_the_commands_run_and_numbers_are_compared(args, monkeypatch, capsys):
    put_everything(args)
    commands = []

    def run(script, *words):
        words = list(map(str, words))
        commands.append([script, *words])
        output = Path(words[words.index("--output") + 1])
        if script == "main_finetune.py":
            (output / "report").mkdir(parents=True)
            metrics = {"metrics": {"accuracy_at_half": 0.774}}
            (output / "report/metrics.json").write_text(json.dumps(metrics))
            return 0
        output.mkdir(parents=True)
        row = {"video_results": 141 / 149, "views": 149, "abnormal_views": 8}
        row["video_path"] = words[words.index("--video") + 1]
        (output / "scores.json").write_text(json.dumps({"videos": [row]}))
        return 0

    replace_scripts(monkeypatch, run)
    assert reproduce.reproduce(items_of(args)) == 0
    out = capsys.readouterr().out
    assert "0.9463087248322147 (141 of 149 views): equal" in out
    assert "77.4: off by -0.7" in out  # human, published 78.1
    assert "94.63, 1 of 360 videos: off by +6.05" in out  # HunyuanVideo, published 88.58
    assert "\nmissing:\n" not in out
    assert out.splitlines()[-1] == "8 of 8 published numbers compared, 0 not run, 0 failed"
    scripts = ["inference.py"] + ["main_finetune.py"] * 3 + ["inference.py"] * 4
    assert [command[0] for command in commands] == scripts
    assert commands[1][1:3] == ["--eval", "--cfg"]
    assert commands[1][3].endswith("configs/vbench2_release.yaml")
    for command in (commands[0], commands[4]):  # weights below --root, the release's settings
        assert "--release" in command
        face = command[command.index("--face-model") + 1]
        assert face == str(args.root / "checkpoint/release/face.pth")
    result = json.loads((args.output / "sora480p/Sora-480p_eval_results.json").read_text())
    assert result["Human_Anatomy"][0] == 141 / 149


def test_a_failed_step_does_not_hide_the_others(args, monkeypatch, capsys):
    put_everything(args)

    def run(*words):
        raise vbench2.RunError(2, "exit status 2 from: x")

    replace_scripts(monkeypatch, run)
    assert reproduce.reproduce(items_of(args)) == 8
    out = capsys.readouterr().out
    assert out.count("failed: exit status 2") == 8
    assert out.splitlines()[-1] == "0 of 8 published numbers compared, 0 not run, 8 failed"


def test_a_script_that_could_not_use_its_input_is_a_failure(args, monkeypatch, capsys):
    put_everything(args)
    replace_scripts(monkeypatch, lambda *words: 1)
    assert reproduce.reproduce(items_of(args)) == 8
    assert "failed: inference.py ended with exit status 1" in capsys.readouterr().out


def test_dry_run_runs_nothing(args, monkeypatch, capsys):
    put_everything(args)
    replace_scripts(monkeypatch, lambda *words: pytest.fail("ran"))
    assert reproduce.reproduce(items_of(args), dry_run=True) == 0
    assert "8 of 8 published numbers would be compared" in capsys.readouterr().out
