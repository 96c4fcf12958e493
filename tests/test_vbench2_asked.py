"""What VBench-2.0's command was asked stays with the results; nothing in the folder is unsaid."""

import csv
import glob
import json
from pathlib import Path

import pytest
from vbench2_runs import call

from human_anomaly.tools.vbench2 import run as vbench2_run
from human_anomaly.utils import UsageError, write_json


@pytest.fixture
def scoring(monkeypatch) -> list[list[str]]:
    """The commands of inference.py; in its place, all its inputs get scores but b-1.mp4."""
    commands = []

    def run(script, *words):
        words = list(map(str, words))
        commands.append(words)
        inputs = words[words.index("--video") + 1 :]
        if "*" in inputs[0]:
            inputs = sorted(glob.glob(inputs[0]))
        counts = {"people": 8, "abnormal_people": 2, "views": 8, "abnormal_views": 2, "tracks": 3}
        rows = [{"video_path": path, "video_results": 0.75, **counts} for path in inputs]
        failed = [row for row in rows if row["video_path"].endswith("b-1.mp4")]
        output = Path(words[words.index("--output") + 1])
        output.mkdir(parents=True, exist_ok=True)
        scores = {"videos": [row for row in rows if row not in failed]}
        failed = [{"video_path": row["video_path"], "error": "broken"} for row in failed]
        write_json(output / "scores.json", scores | {"failed": failed})
        return 1 if failed else 0

    monkeypatch.setattr(vbench2_run, "run_script", run)
    return commands


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).touch()
    return path


def test_who_reads_the_results_later_hears_what_was_asked(scoring, tmp_path, capsys):
    """Of 9 expected videos 4 are there; without the prompts, one of them counted with 2 missing."""
    videos = folder_of(tmp_path / "v", "a-0.mp4", "a-1.mp4", "a-2.mp4", "b-0.mp4", "other.mp4")
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    output = tmp_path / "out"
    words = ("--videos", videos, "--output", output, "--name", "mine")
    assert call(*words, "--prompts", tmp_path / "p.txt", "--allow-missing") == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert first.startswith("Human Anatomy of mine: 75.00 (") and ", 4 videos, 5 missing;" in first
    for later in (output, output / "scores.json"):
        assert call(later) == 0
        assert capsys.readouterr().out.splitlines()[-1] == first
    # Who asks otherwise gets that.
    (tmp_path / "q.txt").write_text("a\n")
    assert call(output, "--prompts", tmp_path / "q.txt", "--name", "m") == 0
    assert "Human Anatomy of m: 75.00 (" in (last := capsys.readouterr().out.splitlines()[-1])
    assert ", 3 videos; not ranked" in last
    # Scores of other videos, written here since.
    write_json(output / "scores.json", {"videos": [{"video_path": "w/z-0.mp4"}]})
    assert call(output) == 1
    assert ", 1 video, 2 missing;" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "m"}', '{"wanted": [1]}'])
def test_a_damaged_note_of_what_was_asked_is_named(content, tmp_path):
    write_json(tmp_path / "scores.json", {"videos": [{"video_path": "w/z-0.mp4"}]})
    (tmp_path / "vbench2.json").write_text(content)
    with pytest.raises(UsageError, match=r"vbench2\.json: expected name, mode, videos, wanted"):
        call(tmp_path)


def test_custom_input_takes_suffixes_in_any_case_and_names_the_rest(scoring, tmp_path, capsys):
    names = ("a.mp4", "b.MP4", "c.Mp4", "d.webm", "notes.txt", ".hidden.mp4")
    videos = folder_of(tmp_path / "v [1]", *names)
    (videos / "more").mkdir()
    words = ("--videos", videos, "--output", tmp_path / "out", "--mode", "custom_input")
    assert call(*words) == 0
    out = capsys.readouterr().out
    assert "left out: 3 (d.webm, more, notes.txt)" in out and ", 3 videos; not ranked" in out
    _, rows = json.loads((tmp_path / "out/v [1]_eval_results.json").read_text())["Human_Anatomy"]
    assert [Path(row["video_path"]).name for row in rows] == ["a.mp4", "b.MP4", "c.Mp4"]
    assert call(tmp_path / "out") == 0  # which knows the mode, too
    assert ", 3 videos; not ranked: --mode custom_input" in capsys.readouterr().out


def test_the_result_is_a_table_too(scoring, tmp_path):
    videos = folder_of(tmp_path / "v", "b-0.mp4", "b-1.mp4", "=b-0.mp4")
    words = ("--videos", videos, "--output", tmp_path / "out", "--allow-missing")
    assert call(*words) == 1
    with (tmp_path / "out/v_eval_results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = {"people": "3", "views": "8", "abnormal_views": "2"}
    nothing = dict.fromkeys(("video_results", *counts), "")
    scored = [
        {"video_path": str(videos / name), "video_results": "0.75", "state": "scored", **counts}
        for name in ("=b-0.mp4", "b-0.mp4")
    ]
    assert rows[:2] == scored
    lacking = [("missing", "'=b-1.mp4"), ("missing", "'=b-2.mp4"), ("missing", "b-2.mp4")]
    assert rows[2:] == [
        {"video_path": name, "state": state, **nothing}
        for state, name in (*lacking, ("failed", "b-1.mp4"))
    ]
