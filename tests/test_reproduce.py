"""What `make reproduce` runs, compares, and misses."""

import json
from argparse import Namespace

import pytest

from models.benchmark import reproduce
from models.benchmark.vbench2 import PUBLISHED
from models.weights import WEIGHTS


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
        *(reproduce.accuracy_item(args, part) for part in reproduce.PARTS),
        *(reproduce.table_item(args, model) for model in PUBLISHED),
    ]


def put_everything(args):
    for weight in WEIGHTS.values():
        (args.root / weight.path).parent.mkdir(parents=True, exist_ok=True)
        (args.root / weight.path).touch()
    (args.data / "dataset").mkdir(parents=True)
    for part in reproduce.PARTS:
        (args.data / "dataset" / f"{part}_test.jsonl").touch()
    (args.data / "src_video").mkdir()
    (args.data / "src_video" / reproduce.CLIP).touch()
    args.videos = args.data / "models"
    for name in ("hunyuan_video", "kling-1.6", "sora-480P", "CogVideoX1.5"):
        (args.videos / name).mkdir(parents=True)


def test_with_nothing_here_everything_missing_is_named_once(args, capsys):
    assert reproduce.reproduce(items_of(args)) == 8
    lines = capsys.readouterr().out.splitlines()
    missing = [line.strip() for line in lines[lines.index("missing:") + 1 :]]
    assert len(missing) == len(set(missing)) == 4 + 1 + 3 + 4
    assert missing[1].startswith(str(args.root / "checkpoint/release/human.pth"))
    assert any("'people are walking.-1.mp4' below" in line for line in missing)
    assert any("hand_test.jsonl (142 test crops" in line for line in missing)
    assert any(line.startswith("Kling 1.6's videos") for line in missing)


def test_with_everything_here_the_commands_run_and_numbers_are_compared(args, monkeypatch, capsys):
    put_everything(args)
    commands = []

    def call(*words):
        words = list(map(str, words))
        commands.append(words)
        output = args.output / words[words.index("--output") + 1]
        if words[0] == "main_finetune.py":
            (output / "report").mkdir(parents=True)
            metrics = {"metrics": {"accuracy_at_half": 0.774}}
            (output / "report/metrics.json").write_text(json.dumps(metrics))
            return
        output.mkdir(parents=True)
        rows = [
            {
                "video_path": "v/people are walking.-1.mp4",
                "video_results": 141 / 149,
                "people": 149,
                "abnormal_people": 8,
            }
        ]
        (output / "scores.json").write_text(json.dumps({"videos": rows}))

    monkeypatch.setattr(reproduce, "_call", call)
    assert reproduce.reproduce(items_of(args)) == 0
    out = capsys.readouterr().out
    assert "0.9463087248322147 (141 of 149 people): equal" in out
    assert "77.4: off by -0.7" in out  # human, published 78.1
    assert "94.63, 1 of 360 videos: off by +6.05" in out  # HunyuanVideo, published 88.58
    assert "\nmissing:\n" not in out
    assert [c[0] for c in commands] == ["inference.py"] + ["main_finetune.py"] * 3 + [
        "inference.py"
    ] * 4
    assert commands[1][1:4] == ["--eval", "--cfg", "configs/vbench2_release.yaml"]


def test_a_failed_step_does_not_hide_the_others(args, monkeypatch, capsys):
    put_everything(args)

    def call(*words):
        raise reproduce.RunError("exit status 2 from: x")

    monkeypatch.setattr(reproduce, "_call", call)
    assert reproduce.reproduce(items_of(args)) == 8
    assert capsys.readouterr().out.count("failed: exit status 2") == 8


def test_dry_run_runs_nothing(args, monkeypatch):
    put_everything(args)
    monkeypatch.setattr(reproduce, "_call", lambda *words: pytest.fail("ran"))
    assert reproduce.reproduce(items_of(args), dry_run=True) == 0
