"""VBench-2.0's command: which videos it scores, what it writes, and when it ranks."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from vbench2_runs import call

from human_anomaly.demo.world import World
from human_anomaly.tools.vbench2 import __main__ as vbench2
from human_anomaly.tools.vbench2 import run as vbench2_run
from human_anomaly.tools.vbench2.evaluation import collect, format_result
from human_anomaly.tools.vbench2.prompts import standard_names
from human_anomaly.utils import UsageError

PROMPTS = ["two people walk [slowly], then wave", "a man's hands, close-up"]  # not sorted
WEIGHTS = [
    *("--cfg", str(ROOT / "configs/demo/demo.yaml")),
    *("--detector_config", str(ROOT / "configs/demo/yolo_world_demo.py")),
    *("--detector_weights", str(ROOT / "demo/weights/detector.pth")),
    *(
        w
        for p in ("human", "face", "hand")
        for w in (f"--{p}_model", f"{ROOT}/demo/weights/{p}.pth")
    ),
    *("--device", "cpu"),
]


def draw(path: Path, seed: int | None) -> None:
    """Write 4 drawn frames of 640x360; without a seed they show nobody."""
    frames = [np.full((720, 1280, 3), 128, np.uint8)] * 4
    if seed is not None:
        world = World(seed, "human", frames=4)
        frames = [world.render(i)[0] for i in range(4)]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (640, 360))
    for frame in frames:
        writer.write(cv2.resize(frame, (640, 360), interpolation=cv2.INTER_AREA))
    writer.release()


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder with the 6 videos of two prompts, and much that the benchmark does not count."""
    folder = tmp_path_factory.mktemp("sampled") / "mymodel"
    for number, name in enumerate(standard_names([], PROMPTS)):
        draw(folder / name, None if number == 4 else number)
    for extra in ("extra.mp4", f"{PROMPTS[0]}-3.mp4", f"nested/{PROMPTS[0]}-0.mp4"):
        draw(folder / extra, 9)
    (folder / "notes-0.txt").write_text("not a video")
    (folder / f"{PROMPTS[0]}-0.webm").write_text("another suffix")
    (folder / ".hidden-0.mp4").write_text("what file managers leave behind")
    return folder


@pytest.fixture(scope="module")
def prompts(videos) -> Path:
    path = videos.parent / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n")
    return path


@pytest.fixture(scope="module")
def scored(videos, prompts, tmp_path_factory) -> Path:
    """The folder of results after the command has scored the 6 videos."""
    output = tmp_path_factory.mktemp("results")
    words = ["--videos", videos, "--output", output, "--prompts", prompts, *WEIGHTS]
    assert vbench2.main(list(map(str, words))) == 0
    return output


def names_of(prompts: list[str]) -> list[str]:
    return [f"{prompt}-{index}.mp4" for prompt in prompts for index in range(3)]


def without(scores: dict, *lost: str, failed: bool = False) -> dict:
    """Return the scores.json without these videos, or with them as failed."""
    kept = [row for row in scores["videos"] if Path(row["video_path"]).name not in lost]
    gone = [row for row in scores["videos"] if row not in kept]
    errors = [{"video_path": row["video_path"], "error": "broken"} for row in gone]
    return {**scores, "videos": kept, "failed": errors if failed else []}


@pytest.fixture
def real_scores(scored) -> dict:
    return json.loads((scored / "scores.json").read_text())


@pytest.fixture
def commands(monkeypatch) -> list:
    """The commands that ran inference.py; instead of it, `commands.scores` is written."""

    class Commands(list):
        scores, status = None, 0

    ran = Commands()

    def run(script, *words):
        ran.append([script, *map(str, words)])
        if ran.scores is not None:
            output = Path(words[words.index("--output") + 1])
            output.mkdir(parents=True, exist_ok=True)
            (output / "scores.json").write_text(json.dumps(ran.scores))
        return ran.status

    monkeypatch.setattr(vbench2_run, "run_script", run)
    return ran


# What it scores and writes.


def test_the_result_file_is_the_benchmarks(scored, videos, real_scores):
    paths = [str(videos / name) for name in names_of(PROMPTS)]
    found = {row["video_path"]: row for row in real_scores["videos"]}
    assert sorted(found) == sorted(paths)  # nothing else in the folder was scored
    assert [found[path]["people"] == 0 for path in paths] == [False] * 4 + [True, False]
    assert found[paths[4]]["video_results"] is None  # here no people are no score, there they are 1
    # The benchmark's rule:
    counts = [(found[path]["people"], found[path]["abnormal_people"]) for path in paths]
    values = [(people - bad) / people if people else 1.0 for people, bad in counts]
    rows = [{"video_path": p, "video_results": v} for p, v in zip(paths, values, strict=True)]
    expected = {"Human_Anatomy": [sum(values) / len(values), rows]}
    assert json.loads((scored / "mymodel_eval_results.json").read_text()) == expected
    assert 0 < expected["Human_Anatomy"][0] < 1


def test_a_reader_of_the_originals_shape_reads_an_incomplete_file(
    videos, prompts, real_scores, commands, tmp_path, capsys
):
    lost = names_of(PROMPTS)[:2]
    part = tmp_path / "part"
    shutil.copytree(videos, part, ignore=lambda _, names: lost)
    commands.scores = json.loads(
        json.dumps(without(real_scores, *lost)).replace(str(videos), str(part))
    )
    words = (
        "--videos",
        part,
        "--output",
        tmp_path / "out",
        "--prompts",
        prompts,
        "--allow-missing",
    )
    assert call(*words, *WEIGHTS) == 0
    content = json.loads((tmp_path / "out/part_eval_results.json").read_text())
    mean, rows = content["Human_Anatomy"]
    assert mean == np.mean([row["video_results"] for row in rows]) and len(rows) == 4
    assert content["incomplete"] == {"expected": 6, "missing": lost, "failed": []}
    assert (
        "4 videos, 2 missing; not ranked: 4 of the benchmark's 360 videos"
        in capsys.readouterr().out.splitlines()[-1]
    )


def test_running_again_goes_on_and_scores_nothing_twice(scored, videos, prompts, capfd):
    stamps = {path: path.stat().st_mtime_ns for path in scored.glob("*.frames.jsonl")}
    before = (scored / "mymodel_eval_results.json").read_bytes()
    words = ("--videos", videos, "--output", scored, "--prompts", prompts)
    assert call(*words, *WEIGHTS) == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps and len(stamps) == 6
    assert (scored / "mymodel_eval_results.json").read_bytes() == before
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith("Human Anatomy of mymodel: ") and ", 6 videos; not ranked: " in last


@pytest.mark.parametrize(
    ("flags", "expected", "given"),
    [
        (["--name", "m"], names_of(sorted(PROMPTS)), True),  # prompts are those seen, sorted
        (["--mode", "custom_input"], None, True),
        (["--hand_model", "h.pth"], names_of(sorted(PROMPTS)), False),  # own weights
        (["--hand-model=h.pth"], names_of(sorted(PROMPTS)), False),
        (["--opts", "TEST.CHANNELS", "rgb", "--device", "cpu"], names_of(sorted(PROMPTS)), True),
    ],
)
def test_the_command_for_inference(flags, expected, given, videos, commands, tmp_path):
    with pytest.raises(UsageError, match="cannot read"):  # as nothing was scored
        call("--videos", videos, "--output", tmp_path / "out", *flags)
    (words,) = commands
    assert ("--release" in words) == given
    inputs = words[words.index("--video") + 1 :]
    pattern = f"{videos}/*.[mM][pP]4"
    assert inputs == ([str(videos / name) for name in expected] if expected else [pattern])
    assert words.index("--output") < words.index("--video")
    if "--opts" in flags:
        assert words[words.index("--opts") :][:3] == ["--opts", "TEST.CHANNELS", "rgb"]


def test_custom_input_takes_the_mp4_files_of_the_folder(videos, real_scores, commands, tmp_path):
    names = sorted([*names_of(PROMPTS), f"{PROMPTS[0]}-3.mp4", "extra.mp4"])
    row = real_scores["videos"][0]
    rows = [{**row, "video_path": str(videos / name)} for name in reversed(names)]
    other = {**row, "video_path": str(videos / "nested" / names[0])}  # added to the same results
    commands.scores = {**real_scores, "videos": [other, *rows]}
    output = tmp_path / "out"
    assert call("--videos", videos, "--output", output, "--mode", "custom_input") == 0
    result = json.loads((output / "mymodel_eval_results.json").read_text())
    assert list(result) == ["Human_Anatomy"]
    assert [Path(r["video_path"]).name for r in result["Human_Anatomy"][1]] == names


def test_missing_videos_are_named_before_scoring(videos, commands, tmp_path, capsys):
    listed = [*PROMPTS, "x" * 200, "a/b"]  # cut in file names; one that can be no file name
    (tmp_path / "p.json").write_text(json.dumps(listed))
    words = ("--videos", videos, "--output", tmp_path / "out", "--prompts", tmp_path / "p.json")
    with pytest.raises(UsageError) as raised:
        call(*words)
    message = str(raised.value)
    assert "6 of 12 videos missing" in message and f"{'x' * 180}-0.mp4" in message
    assert "a/b-1.mp4 and 1 more" in message and "--allow-missing" in message
    assert commands == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "expected files named <prompt>-<0..2>.mp4 directly in"),
        (["--allow-missing"], "expected files named"),
        (["--mode", "custom_input"], "expected .mp4 files directly in"),
    ],
)
def test_a_folder_without_videos(flags, words, tmp_path, commands):
    (tmp_path / "walk-7.mp4.part").touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "walk-0.mp4").touch()
    with pytest.raises(UsageError, match=words):
        call("--videos", tmp_path, "--output", tmp_path / "out", *flags)
    with pytest.raises(UsageError, match="no such folder"):
        call("--videos", tmp_path / "none", "--output", tmp_path / "out", *flags)
    assert commands == []


def test_failed_videos(videos, prompts, real_scores, commands, tmp_path, capsys):
    lost = names_of(PROMPTS)[5]
    commands.scores, commands.status = without(real_scores, lost, failed=True), 1
    words = ("--videos", videos, "--output", tmp_path, "--prompts", prompts)
    assert call(*words) == 1
    assert f"error: 1 video failed: {lost}; --allow-missing" in capsys.readouterr().err
    assert not (tmp_path / "mymodel_eval_results.json").exists()
    assert call(*words, "--allow-missing") == 1
    content = json.loads((tmp_path / "mymodel_eval_results.json").read_text())
    assert content["incomplete"] == {"expected": 6, "missing": [], "failed": [lost]}
    assert ", 5 videos, 1 failed; not ranked" in capsys.readouterr().out


def test_scoring_that_breaks_off_is_no_result(
    videos, prompts, real_scores, commands, tmp_path, capsys, monkeypatch
):
    words = ("--videos", videos, "--output", tmp_path, "--prompts", prompts)
    commands.scores = without(real_scores, names_of(PROMPTS)[0])
    assert call(*words) == 1  # neither scored nor failed
    assert "holds neither a score nor an error for two people" in capsys.readouterr().err
    commands.scores, commands.status = None, 1  # an older scores.json is there
    assert call(*words) == 1
    assert "exit status 1 before it wrote" in capsys.readouterr().err
    commands.status = 0
    monkeypatch.setenv("WORLD_SIZE", "2")  # the process that ends last writes the result
    assert call(*words) == 0
    assert not (tmp_path / "mymodel_eval_results.json").exists()


def test_inferences_own_error_is_passed_on(videos, tmp_path, capfd):
    words = ("--videos", videos, "--output", tmp_path, "--no-such-flag")
    assert call(*words) == 2
    error = capfd.readouterr().err
    assert (
        "unrecognized arguments: --no-such-flag" in error
        and "error: inference.py ended with exit status 2\n" in error
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --videos DIR, or one scores.json"),
        (["--device", "cpu"], "expected --videos DIR, or one scores.json"),
        (["scores.json", "--output", "out"], "expected --videos DIR with them"),
        (["--videos", "d", "--video", "a.mp4"], "--video: expected --videos DIR"),
        (["--videos", "d", "--name", "../up"], "--name: expected a name without folders"),
        (["--videos", "d", "--mode", "custom_input", "--prompts", "p"], "--prompts: means nothing"),
    ],
)
def test_wrong_use(words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        vbench2.main(words)
    assert exit_.value.code == 2 and message in capsys.readouterr().err


def test_real_scores_with_demo_weights_stand_alone_with_the_reasons(scored, capsys):
    assert call(scored / "scores.json", "--name", "demo") == 0
    out = capsys.readouterr().out
    assert "HunyuanVideo" not in out and "; rank " not in out
    for words in (
        "other detector weights than the released: ",
        "other human weights than the released: ",
        "the detector's config is yolo_world_demo.py",
        "SCORE.THRESHOLDS.HUMAN 0.45 instead of 0.4545454545454546",
        "TEST.CHANNELS rgb instead of bgr",
        "MODEL.VIT.DEPTH 3 instead of 12",
    ):
        assert words in out
    last = out.splitlines()[-1]
    assert last.startswith("Human Anatomy of demo: ")
    assert "not ranked: 6 of the benchmark's 360 videos (and " in last
    assert call(scored) == 0  # the folder that holds it


def test_the_mean_and_its_interval_are_over_videos(real_scores):
    result = collect(real_scores, names_of(PROMPTS), name="demo")
    values = [row["video_results"] for row in result.rows]
    assert result.mean == sum(values) / 6 and values[4] == 1.0
    low, high = format_result(result).splitlines()[-1].split("(95% ")[1].split(")")[0].split(" to ")
    half = 1.96 * 100 * np.std(values) / 6**0.5
    assert float(high) - float(low) == pytest.approx(2 * half, rel=0.2)
