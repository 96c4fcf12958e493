"""What moves the score: the changes, the copies that ffmpeg writes, and a run over a video."""

import shutil

import pytest
from conftest import RELEASE_YAML, ROOT

from human_anomaly import inference
from human_anomaly.configs.defaults import PARTS, differences, get_config
from human_anomaly.demo.paths import VIDEOS
from human_anomaly.tools import sensitivity
from human_anomaly.tools.sensitivity import changes_of, copy_videos, format_table
from human_anomaly.utils import UsageError, read_jsonl

DOCUMENTED = ROOT / "configs/documented.yaml"


def test_the_two_named_settings_differ_in_the_four_conventions():
    """Everything else is the same: neither file changes the classifier's shape or the crop."""
    changed = differences(get_config(RELEASE_YAML), get_config(DOCUMENTED))
    changed.pop("BASE", None)
    thresholds = {f"SCORE.THRESHOLDS.{part.upper()}" for part in PARTS}
    others = {"TEST.CHANNELS", "DETECTOR.KEEP_PADDING_CLASS", "SCORE.NO_PERSON"}
    assert set(changed) == thresholds | others


@pytest.mark.parametrize("path", [None, RELEASE_YAML, DOCUMENTED])
def test_each_change_of_settings_changes_what_it_says(path):
    config = get_config(path)
    changes = list(changes_of(config, 3))
    keys = {
        "colours": "TEST.CHANNELS",
        "direct": "TEST.CROP",
        "thresholds": "SCORE.THRESHOLDS",
        "boxes": "DETECTOR.KEEP_PADDING_CLASS",
        "no": "SCORE.NO_PERSON",
    }
    for name, opts, _ in changes[:5]:
        changed = differences(get_config(path, flags=opts), config)
        assert changed and all(k.startswith(keys[name.split()[0]]) for k in changed)
    thresholds = get_config(path, flags=changes[2][1]).SCORE.THRESHOLDS
    other = DOCUMENTED if path == RELEASE_YAML else RELEASE_YAML
    assert thresholds == get_config(other).SCORE.THRESHOLDS
    flags = [flags for _, _, flags in changes[5:]]
    assert flags == [*(["--frame-stride", n] for n in ("6", "12", "24")), ["--fast"]]


def test_the_table_by_hand():
    rows = [
        {"change": "none", "mean": 0.625, "difference": 0.0, "ci95": None, "changed": 0.0},
        {"change": "x", "mean": 0.5, "difference": -0.25, "ci95": [-0.5, 0.0], "changed": None},
    ]
    assert format_table(rows).splitlines()[2:] == [
        "| none | 0.6250 | +0.0000 | 0.00% |",
        "| x | 0.5000 | -0.2500 [-0.5000, +0.0000] | - |",
    ]


def put_ffmpeg(monkeypatch, folder, script):
    """Put a program `ffmpeg` first on the PATH: the input is its argument $5, the output ${11}."""
    folder.mkdir()
    (folder / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_copies_are_kept_and_failures_named(tmp_path, monkeypatch, capsys):
    put_ffmpeg(
        monkeypatch,
        tmp_path / "bin",
        'case "$5" in *bad*) echo no >&2; exit 1;; esac\n'
        'echo run >> "$(dirname "$0")/log"; cp "$5" "${11}"',
    )
    videos = [tmp_path / "in" / "good.mp4", tmp_path / "in" / "sub" / "bad.mp4"]
    videos[1].parent.mkdir(parents=True)
    for path in videos:
        path.write_bytes(b"video")
    for _ in range(2):
        copies = copy_videos(videos, tmp_path / "in", tmp_path / "out", "-crf 28")
        assert copies == [tmp_path / "out" / "good.mp4"] and copies[0].read_bytes() == b"video"
        assert "bad.mp4: ffmpeg: no" in capsys.readouterr().out
    assert (tmp_path / "bin" / "log").read_text() == "run\n"  # the second call kept the copy


def test_a_run_and_its_continuation(tmp_path, monkeypatch, capsys):
    """Each change has a folder of results; the second run scores nothing again."""
    calls = []

    def here(script, *words):
        calls.append([str(word) for word in words])
        return inference.main(calls[-1])

    put_ffmpeg(monkeypatch, tmp_path / "bin", 'cp "$5" "${11}"')
    monkeypatch.setattr(sensitivity, "run_script", here)
    monkeypatch.setattr(sensitivity, "COPIES", {"the same": ("-c:v copy", 1)})
    chosen = ("colours", "thresholds")
    monkeypatch.setattr(
        sensitivity,
        "changes_of",
        lambda *args: [change for change in changes_of(*args) if change[0].startswith(chosen)],
    )
    (tmp_path / "in").mkdir()
    shutil.copy(VIDEOS / "hand_fused.mp4", tmp_path / "in")
    words = ["--videos", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    words += ["--frame-stride", "24"]
    assert sensitivity.main(words) == 0
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    names = ["none", "colours BGR", "thresholds exact", "the same"]
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {name}" for name in names]
    assert table[-1].endswith("| +0.0000 | 0.00% |")
    assert "--opts" not in calls[0] and calls[1][:4] == [*words[4:], "--opts", "TEST.CHANNELS"]
    files = sorted(tmp_path.glob("out/*/hand_fused.frames.jsonl"))
    assert {f.parent.name for f in files} == {n.lower().replace(" ", "-") for n in names}
    soft = [[frame["score"] for frame in read_jsonl(file)] for file in files]
    assert len(soft) == 4 and all(soft)
    times = [file.stat().st_mtime_ns for file in files]
    assert sensitivity.main(words) == 0
    assert times == [file.stat().st_mtime_ns for file in files]
    assert capsys.readouterr().out.split("\n\n")[-1].splitlines() == table
    # Other settings into the same folders: inference.py refuses, and its status is passed on.
    with pytest.raises(UsageError, match="frame_stride"):
        sensitivity.main([*words[:-1], "12"])


@pytest.mark.parametrize("folder", ["none", "."])
def test_folders_without_videos_are_named(folder, tmp_path):
    with pytest.raises(UsageError, match="--videos: expected a folder with videos"):
        sensitivity.main(["--videos", str(tmp_path / folder)])
