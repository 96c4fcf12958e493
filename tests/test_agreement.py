"""Agreement of scores with people's preferences, against counts made by hand."""

import itertools
import json

import numpy as np
import pytest

from human_anomaly.demo.paths import ROOT, VIDEOS, load_scorer
from human_anomaly.demo.truth import abnormal_part, read_truth
from human_anomaly.models.scoring.results import SCORES
from human_anomaly.tools.agreement import (
    Preference,
    Videos,
    agree,
    best_tie_threshold,
    main,
    pair_accuracy,
    read_preferences,
    score_names,
)
from human_anomaly.utils import UsageError, write_json


def row(path, **scores):
    return {"video_path": path, **dict.fromkeys(SCORES, 0.5), **scores}


def test_csv_and_both_forms_of_json_say_the_same(tmp_path):
    (tmp_path / "p.csv").write_text(
        "rater,video_a,video_b,winner\n1,x.mp4,y.mp4,A\n2,y.mp4,z,tie\n"
    )
    objects = [
        {"video_a": "x.mp4", "video_b": "y.mp4", "winner": "a"},
        {"video_a": "y.mp4", "video_b": "z", "winner": "tie"},
    ]
    write_json(tmp_path / "o.json", objects)
    write_json(tmp_path / "l.json", [list(entry.values()) for entry in objects])
    expected = [Preference("x.mp4", "y.mp4", 1), Preference("y.mp4", "z", 0)]
    for name in ("p.csv", "o.json", "l.json"):
        assert read_preferences(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "left,right\n1,2\n", "expected video_a, video_b and winner .* found left, right"),
        ("a.csv", "video_a,video_b,winner\n", "holds no pair"),
        ("a.csv", "video_a,video_b,winner\nx,y,x\n", "line 2: winner: expected a, b or tie.*'x'"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"data": []}', "expected a list of pairs, found dict with data"),
        ("a.json", '[["x", "y"]]', r'entry 0: expected video_a, .* found \["x", "y"\]'),
        ("a.json", '[{"prompt": "p"}]', 'entry 0: .* found {"prompt": "p"}'),
        ("none.csv", None, "cannot read"),
    ],
)
def test_what_was_expected_and_found_is_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"^--preferences: .*{message}"):
        read_preferences(tmp_path / name)


def test_videos_are_found_by_the_last_parts_of_their_path():
    videos = Videos([row("out/m1/p-0.mp4"), row("out/m2/p-0.mp4"), row("out\\m2\\q-0.mp4")])
    assert videos.find("m1/p-0.mp4")["video_path"] == "out/m1/p-0.mp4"
    assert videos.find("q-0.mp4") and videos.find("none.mp4") is None
    with pytest.raises(UsageError, match=r"p-0\.mp4 may be any of out/m1/p-0\.mp4, out/m2"):
        videos.find("p-0.mp4")


def test_accuracy_by_hand():
    """Differences of four pairs; people say a, b, a, tie."""
    differences, signs = np.array([0.3, 0.2, 0.0, 0.05]), np.array([1, -1, 1, 0])
    assert pair_accuracy(differences, signs).tolist() == [1, 0, 0.5]
    # No ties called: only the first is right. Up to 0.05: the first and the fourth.
    assert best_tie_threshold(differences, signs) == 0.05
    assert best_tie_threshold(differences, np.sign(differences - 0.01)) == -1


def test_a_score_that_follows_the_preferences_and_one_that_does_not():
    rng = np.random.default_rng(0)
    rows, true = [], {}
    for model, good in enumerate((0.2, 0.5, 0.6, 0.9)):
        for i in range(10):
            name = f"m{model}/p-{i}.mp4"
            true[name] = good + rng.normal(0, 0.05)
            rows.append(row(f"results/{name}", score_soft=true[name], score_people=rng.random()))
    rows[0]["score_soft"] = None  # nobody in it
    pairs = [
        Preference(a, b, int(np.sign(true[a] - true[b])))
        for a, b in itertools.combinations(true, 2)
    ]
    assert score_names([{**rows[0], "score_new": 0.1}]) == [*SCORES, "score_new"]
    found = agree(pairs, rows, "score_soft", 200)
    assert found["left_out"] == 39 and found["pairs"] == 39 * 38 // 2
    assert found["without_ties"]["share"] == found["with_ties"]["share"] == 1
    assert found["models"]["spearman"] == pytest.approx(1)
    other = agree(pairs, rows, "score_people", 200)
    assert 0.3 < other["without_ties"]["share"] < 0.7 and other["models"]["models"] == 4
    flat = agree(pairs, rows, "video_results", 200)  # all scores are equal
    assert flat["without_ties"]["share"] == 0.5
    assert agree(pairs[:1], [], "score_soft")["pairs"] == 0


def test_drawn_videos_whose_truth_gives_the_preferences(tmp_path, capsys):
    """The demo's weights prefer the normal videos, as the truth does."""
    parts = {v: abnormal_part(f) for v, f in read_truth(ROOT / "demo/truth.jsonl").items()}
    scorer = load_scorer(stride=12)
    rows = [scorer.score(VIDEOS / video, keep_frames=False).summary for video in parts]
    write_json(tmp_path / "scores.json", {"videos": rows})
    lines = ["video_a,video_b,winner"]
    for a, b in itertools.combinations(parts, 2):
        normal = [parts[a] is None, parts[b] is None]
        winner = "tie" if normal[0] == normal[1] else "ab"[normal.index(True)]
        lines.append(f"{a},{b},{winner}")
    (tmp_path / "p.csv").write_text("\n".join([*lines, "gone.mp4,a.mp4,a"]))
    command = [str(tmp_path), "--preferences", str(tmp_path / "p.csv"), "--samples", "50"]
    assert main([*command, "--output", str(tmp_path / "out.json")]) == 0
    shown = capsys.readouterr().out
    assert "not scored, so their pairs are left out: 2 (gone.mp4, a.mp4)" in shown
    assert "66.9% of raw pairs" in shown
    found = {s["score"]: s for s in json.loads((tmp_path / "out.json").read_text())["scores"]}
    assert found["score_soft"]["pairs"] == 6
    assert found["score_soft"]["without_ties"] == {"pairs": 4, "share": 1.0, "ci95": [1.0, 1.0]}
    assert found["score_soft"]["models"] is None


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("a/x.mp4,a/none.mp4", "both its videos$"),
        ("a/x.mp4,gone.mp4", "both its videos; not scored: gone.mp4$"),
    ],
)
def test_without_one_usable_pair_there_is_no_table(tmp_path, pair, message, capsys):
    nobody = row("a/none.mp4", **dict.fromkeys(SCORES))
    write_json(tmp_path / "scores.json", {"videos": [row("a/x.mp4"), nobody]})
    (tmp_path / "p.csv").write_text(f"video_a,video_b,winner\n{pair},a\n")
    command = [str(tmp_path), "--preferences", str(tmp_path / "p.csv")]
    with pytest.raises(UsageError, match=f"^--preferences: no pair has scores of {message}"):
        main([*command, "--output", str(tmp_path / "out.json")])
    assert capsys.readouterr().out == "" and not (tmp_path / "out.json").exists()


def test_preferences_about_other_videos_are_refused(tmp_path):
    write_json(tmp_path / "scores.json", {"videos": [row("a/x.mp4")]})
    (tmp_path / "p.csv").write_text("video_a,video_b,winner\nu.mp4,v.mp4,a\n")
    with pytest.raises(UsageError, match=r"expected names such as a/x\.mp4, found u\.mp4, v\.mp4"):
        main([str(tmp_path), "--preferences", str(tmp_path / "p.csv")])
