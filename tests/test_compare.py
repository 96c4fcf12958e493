"""Two score files side by side, and the table of one."""

import json

import numpy as np
import pytest

from human_anomaly.models.scoring.results import by_name, mean_interval, print_scores, read_scores
from human_anomaly.tools.compare import changed_verdicts, compare, format_table, main, pair_videos
from human_anomaly.utils import UsageError, write_json, write_jsonl


def row(path, score, **other):
    return {"video_path": path, "video_results": score, **other}


def scores(*rows, **other):
    empty = {"version": 1, "settings": {}, "failed": [], "warnings": []}
    return {**empty, "videos": list(rows), **other}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/x.mp4", "/a/y.mp4"], ["x.mp4", "y.mp4"]),
        (["/a/b/x.mp4", "/a/c/x.mp4"], ["b/x.mp4", "c/x.mp4"]),  # same name in two folders
        (["x.mp4", "d/x.mp4"], ["x.mp4", "d/x.mp4"]),
        (["out/x.mp4"], ["x.mp4"]),  # one video: its own folder is the common one
        (["/a/x.mp4", "y.mp4"], ["/a/x.mp4", "y.mp4"]),  # absolute and relative: no common folder
        ([], []),
    ],
)
def test_names_below_the_common_folder(paths, names):
    assert list(by_name([row(p, 1.0) for p in paths])) == names


def test_pairs_by_file_name_in_two_folders():
    a = [row("/m1/x.mp4", 0.5), row("/m1/only.mp4", 0.1), row("/m1/n.mp4", None)]
    b = [row("/m2/x.mp4", 0.75), row("/m2/new.mp4", 0.2), row("/m2/n.mp4", 1.0)]
    result = compare(scores(*a), scores(*b))
    assert result["videos"] == [{"video": "x.mp4", "a": 0.5, "b": 0.75, "difference": 0.25}]
    assert (result["only_a"], result["only_b"]) == (["only.mp4"], ["new.mp4"])
    assert result["no_score"] == ["n.mp4"]  # no people in one of them: no difference to speak of
    assert result["ci95"] is None and result["mean_difference"] == 0.25


def test_one_video_against_a_folder_falls_back_to_file_names():
    pairs, _, _ = pair_videos(
        [row("/m1/sub/x.mp4", 1.0), row("/m1/y.mp4", 1.0)], [row("/m2/x.mp4", 0.0)]
    )
    assert [p[0] for p in pairs] == ["x.mp4"]


def person(abnormal, *box):
    return {"abnormal": abnormal, "bbox": list(box)}


def test_people_are_matched_by_their_boxes(tmp_path):
    """Frames and people that only one of the two has do not count; boxes may be scaled."""
    before = [person(True, 0, 0, 10, 10), person(False, 50, 0, 60, 10), person(True, 0, 90, 9, 99)]
    after = [person(True, 100, 0, 120, 20), person(True, 2, 0, 20, 20)]  # twice as large
    folders = [tmp_path / "a", tmp_path / "b"]
    frames = ([(0, before), (1, before)], [(1, after)])
    for folder, rows in zip(folders, frames, strict=True):
        folder.mkdir()
        write_json(folder / "scores.json", scores(row("x.mp4", 0.5, frames_file="x.jsonl")))
        people = [{"frame": frame, "people": people} for frame, people in rows]
        write_jsonl(folder / "x.jsonl", people)
    assert changed_verdicts(*folders, 2) == 1 / 2
    assert changed_verdicts(*folders) is None  # boxes of another scale belong to nobody
    assert changed_verdicts(folders[0], folders[0]) == 0


def test_no_common_video_is_an_error():
    with pytest.raises(UsageError, match="no video in common"):
        compare(scores(row("a.mp4", 1.0)), scores(row("b.mp4", 1.0)))


def test_interval_meets_the_normal_approximation():
    rng = np.random.default_rng(1)
    differences = rng.normal(0.05, 0.2, 400)
    low, high = mean_interval(differences, samples=4000)
    half = 1.96 * differences.std() / 20
    assert low == pytest.approx(differences.mean() - half, abs=0.004)
    assert high == pytest.approx(differences.mean() + half, abs=0.004)


@pytest.mark.parametrize(
    ("values", "groups"),
    [([], None), ([0.5], None), ([0.5, 0.7], ["one prompt", "one prompt"])],
)
def test_fewer_than_two_groups_have_no_interval(values, groups):
    assert mean_interval(values, groups) is None


def test_pairing_narrows_the_interval():
    """A large spread between videos must not hide a small gain that all of them share."""
    base = np.linspace(0, 0.9, 50)
    a = scores(*(row(f"a/{i:02}.mp4", v) for i, v in enumerate(base)))
    b = scores(*(row(f"b/{i:02}.mp4", v + 0.05 + 0.01 * (i % 2)) for i, v in enumerate(base)))
    result = compare(a, b)
    low, high = result["ci95"]
    assert 0.05 <= low < result["mean_difference"] < high <= 0.06
    assert "B is better" in format_table(result)
    swapped = compare(b, a)
    assert "A is better" in format_table(swapped)
    assert swapped["mean_difference"] == pytest.approx(-result["mean_difference"])


def test_videos_of_one_prompt_are_drawn_together():
    """Three equal videos per prompt tell as much as one: the interval must not shrink."""
    gains = np.random.default_rng(0).normal(0, 0.1, 30)
    once = compare(
        scores(*(row(f"a/p{i}-0.mp4", 0.5) for i in range(30))),
        scores(*(row(f"b/p{i}-0.mp4", 0.5 + g) for i, g in enumerate(gains))),
    )
    thrice = compare(
        scores(*(row(f"a/p{i}-{k}.mp4", 0.5) for i in range(30) for k in range(3))),
        scores(*(row(f"b/p{i}-{k}.mp4", 0.5 + g) for i, g in enumerate(gains) for k in range(3))),
    )
    width = [c["ci95"][1] - c["ci95"][0] for c in (once, thrice)]
    assert width[1] == pytest.approx(width[0], rel=0.05)


def test_differing_settings_are_named():
    a = scores(row("x.mp4", 1.0), settings={"thresholds": {"hand": 0.32}, "fast": False})
    b = scores(row("x.mp4", 0.0), settings={"thresholds": {"hand": 0.5}, "fast": False})
    assert compare(a, b)["settings"] == {"thresholds.hand": [0.32, 0.5]}


@pytest.mark.parametrize(
    ("a", "b", "unlike"),
    [
        ({"frame_stride": 1}, {"frame_stride": 5}, "frame_stride"),
        ({"models": {"face": "f.pth", "hand": "h"}}, {"models": {"hand": "h"}}, "models.face"),
        ({"changed": {"TEST.CROP": False}}, {"changed": {}}, "changed.TEST.CROP"),
        ({"changed": {"SCORE.NO_PERSON": 1.0}}, {}, "changed.SCORE.NO_PERSON"),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, "dtype"),
        ({"decoder": 2}, {}, "decoder"),  # B is of a version that had another one
        # What leaves the scores as they are: paths of settings, pictures' times, training.
        ({"cfg": "a", "fps": 25.0, "changed": {"TRAIN.EPOCHS": 3}}, {"cfg": "b", "fps": 30.0}, ""),
    ],
)
def test_other_settings_are_the_verdict(a, b, unlike):
    """The interval, far above 0, stands beside it."""
    left, right = (
        scores(*(row(f"{i}.mp4", base + 0.01 * i * i) for i in range(3)), settings=settings)
        for base, settings in ((0.1, a), (0.5, b))
    )
    result = compare(left, right)
    expected = f"not comparable, other settings: {unlike}" if unlike else "B is better"
    assert result["verdict"] == expected and result["unlike"] == ([unlike] if unlike else [])
    last = format_table(result).splitlines()[-1]
    assert last.endswith(f"  95% [+0.4000, +0.4000]: {expected}")


def test_the_same_weights_in_two_places_are_no_other_setting(tmp_path):
    files = [tmp_path / name for name in ("a.pth", "b.pth", "c.pth")]
    for file, content in zip(files, (b"w", b"w", b"v"), strict=True):
        file.write_bytes(content)
    a, b, c = (
        scores(row("x.mp4", 0.5), settings={"detector_weights": str(file)}) for file in files
    )
    assert compare(a, b)["unlike"] == [] and compare(a, c)["unlike"] == ["detector_weights"]
    assert compare(a, b)["settings"] == {"detector_weights": [str(files[0]), str(files[1])]}


def test_differing_versions_are_named():
    def versioned(*versions: str) -> dict:
        rows = [
            {**scored_row(f"{i}.mp4", 0.5), "versions": {"av": v}} for i, v in enumerate(versions)
        ]
        return scores(*rows)

    same = compare(versioned("15.0.0", "15.0.0"), versioned("15.0.0", "15.0.0"))
    assert same["versions"] == {} and "version" not in format_table(same)
    result = compare(versioned("15.0.0", "18.1.0"), versioned("18.1.0", "18.1.0"))
    assert result["versions"] == {"av": ["15.0.0, 18.1.0", "18.1.0"]}
    assert "version of av: A 15.0.0, 18.1.0, B 18.1.0" in format_table(result)
    older = compare(scores(scored_row("0.mp4", 0.5)), versioned("18.1.0"))
    assert "version of av: A unknown, B 18.1.0" in format_table(older)


def test_command(tmp_path, monkeypatch, capsys):
    for name, value in (("a", 0.5), ("b", 0.25)):
        (tmp_path / name).mkdir()
        content = scores(row(f"{name}/x-0.mp4", value), row(f"{name}/y-0.mp4", 1.0))
        (tmp_path / name / "scores.json").write_text(json.dumps(content))
    out = tmp_path / "c.json"
    words = ["compare", str(tmp_path / "a/scores.json"), str(tmp_path / "b"), "--output", str(out)]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    assert json.loads(out.read_text())["mean_difference"] == -0.125
    printed = capsys.readouterr().out
    assert "0.5000   0.2500  -0.2500  x-0.mp4" in printed
    last = printed.splitlines()[-1]
    assert last.startswith("mean of 2") and last.endswith(
        "no difference shown: the interval holds 0"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{", "not JSON"),
        ("[]", "expected a scores.json with a list 'videos'"),
        ('{"videos": [{}]}', r"videos\[0\] has no video_path"),
        ('{"videos": [{"video_path": "a", "video_results": "1"}]}', "expected a number"),
        ('{"videos": [], "failed": [1]}', r"failed\[0\] has no video_path"),
        ('{"videos": [], "warnings": "no"}', "with a list 'warnings'"),
    ],
)
def test_what_is_no_score_file(tmp_path, content, words):
    path = tmp_path / "scores.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=words):
        read_scores(tmp_path if content is not None else path)


def scored_row(path, score, people=2):
    counts = {"tracks": people, "views": 7 * people, "abnormal_views": people}
    return row(path, score, ci95=None, warnings=[], **counts)


@pytest.mark.parametrize(
    ("videos", "failed", "lines", "last"),
    [
        # a header and a row per video
        ([("a", 0.5), ("b", 1.0)], [], 4, " 0.750 mean of 2 videos; results in s.json"),
        ([("a", 0.5)], ["b"], 4, " 0.500 mean of 1 video, 1 video failed; results in s.json"),
        # nothing was scored: no header
        (
            [],
            ["a", "b"],
            3,
            "no score: no video could be scored, 2 videos failed; results in s.json",
        ),
        ([("a", None)], [], 3, "no score: no people in 1 video; results in s.json"),
    ],
)
def test_printed_scores_end_with_the_result(videos, failed, lines, last, capsys):
    known = [score for _, score in videos if score is not None]
    content = scores(*(scored_row(path, score) for path, score in videos))
    content["failed"] = [{"video_path": path, "error": "broken"} for path in failed]
    content["mean"] = {"video_results": sum(known) / len(known) if known else None}
    print_scores(content, "s.json")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines and printed[-1] == last
    assert any("95% interval" in line for line in printed) == bool(videos)
    if videos:
        assert printed[0].split()[3:] == ["people", "views", "abnormal", "video"]
        assert printed[1].split()[-4:] == ["2", "14", "2", "a"]
    assert [line for line in printed if line.startswith("failed")] == [
        f"failed: {path}: broken" for path in failed
    ]


def paired() -> tuple[dict, dict]:
    a = [row("/a/walk_seed1_base.mp4", 0.5), row("/a/run_seed2_base.mp4", None)]
    b = [row("/b/walk_seed7_ours.mp4", 0.75, score_soft=0.1), row("/b/sit_seed1_ours.mp4", 1.0)]
    return scores(*a), scores(*b)


def test_names_are_paired_without_what_differs():
    result = compare(*paired(), without=r"_seed\d+_(base|ours)")
    assert result["videos"] == [{"video": "walk.mp4", "a": 0.5, "b": 0.75, "difference": 0.25}]
    assert (result["only_a"], result["only_b"]) == (["run.mp4"], ["sit.mp4"])
    with pytest.raises(UsageError, match=r"in common.*in A run_seed2_base.mp4, walk_.*in B sit_"):
        compare(*paired())


def test_two_names_that_become_one_are_an_error():
    a = scores(row("/a/walk_seed1.mp4", 0.5), row("/a/walk_seed2.mp4", 0.5))
    words = r"in A, it gives /a/walk_seed1.mp4 and /a/walk_seed2.mp4 the same name 'walk.mp4'"
    with pytest.raises(UsageError, match=words):
        compare(a, a, without=r"_seed\d+")


def test_csv_has_a_row_per_pair(tmp_path, monkeypatch, capsys):
    for name, content in zip("ab", paired(), strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    flags = ["--pair", r"_seed\d+_(base|ours)", "--csv", str(tmp_path / "pairs.csv")]
    monkeypatch.setattr("sys.argv", ["compare", *files, *flags])
    assert main() == 0
    assert "left out, only in A: 1 (run.mp4)" in capsys.readouterr().out
    head, line = (tmp_path / "pairs.csv").read_text().splitlines()
    found = dict(zip(head.split(","), line.split(","), strict=True))
    assert found["video"] == "walk.mp4" and found["path_a"] == "/a/walk_seed1_base.mp4"
    assert (found["video_results_a"], found["video_results_b"]) == ("0.5", "0.75")
    assert (found["score_soft_a"], found["score_soft_b"]) == ("", "0.1")
    monkeypatch.setattr("sys.argv", ["compare", *files, "--pair", "("])
    with pytest.raises(SystemExit):
        main()
    assert "--pair: not a regular expression" in capsys.readouterr().err
