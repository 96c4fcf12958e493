"""The figures of the report and the pages made of a folder of results."""

import csv
import html.parser
import json
import subprocess
import sys

import pytest
from conftest import ROOT
from report_results import (
    HOSTILE,
    THRESHOLDS,
    frame_row,
    half_heat,
    make_results,
    moving,
    part,
    person,
)

from human_anomaly.models.report.evidence import Evidence
from human_anomaly.models.report.facts import histogram_path, video_facts
from human_anomaly.models.report.page import build_report, judged_thresholds, scoring_settings
from human_anomaly.models.report.timeline import COLUMNS, timeline
from human_anomaly.models.scoring.scores import MARGIN
from human_anomaly.utils import UsageError, write_json, write_jsonl

# The figures of a video.


def test_fragile_views_and_moved_thresholds():
    people = [
        person(part("human", [0, 0, 9, 9], 0.44)),  # normal, flagged when thresholds fall
        person(part("human", [0, 0, 9, 9], 0.50), part("hand", [0, 0, 9, 9], 0.1)),  # at the edge
        person(part("human", [0, 0, 9, 9], 0.51)),  # abnormal either way
        person(part("face", [0, 0, 9, 9], 0.1)),  # normal either way
    ]
    facts = video_facts([frame_row(0, *people[:2]), frame_row(1, *people[2:])], THRESHOLDS)
    assert facts["fragile"] == 2
    assert facts["strict"] == 1 / 4 and facts["lenient"] == 3 / 4
    human, face, hand = facts["table"]
    assert (human["judged"], human["flagged"], human["near"]) == (3, 2, 2)
    assert human["highest"] == 0.51 and face["flagged"] == 0 and hand["judged"] == 1


def test_no_people_no_figures():
    facts = video_facts([frame_row(0), frame_row(1)], THRESHOLDS)
    assert facts["strict"] is None and facts["fragile"] == 0
    assert facts["table"][0]["highest"] is None and facts["table"][0]["bars"] == ""
    assert timeline([], THRESHOLDS) is None
    plot = timeline([frame_row(0)], THRESHOLDS)  # one frame without people still has a plot
    assert plot["score"] == "" and plot["people"] == [] and plot["data"]["score"] == [None]


def test_histogram_bars_stand_where_the_values_are():
    assert histogram_path([0.5, 0.51, 1.0]) == "M50.0 24v-23.0h2.5V24zM97.5 24v-11.5h2.5V24z"


def test_timeline_has_a_lane_for_each_persons_part():
    rows = [moving(0, 0.1), moving(1, 0.5), frame_row(2), moving(3, 1.0, number=1)]
    plot = timeline(rows, THRESHOLDS)
    assert plot["score"] == "M125.0 0.0L375.0 100.0M875.0 100.0h2"  # broken where nobody is
    assert [(p["id"], p["flagged"], p["views"]) for p in plot["people"]] == [(0, 1, 2), (1, 1, 1)]
    human, hand = plot["people"][0]["lanes"]
    assert (human["part"], hand["part"]) == ("human", "hand") and human["flagged"] == ""
    assert hand["normal"] == "M0.0 100v-10h250.0V100z"
    assert hand["flagged"] == "M250.0 100v-50h250.0V100z"
    assert plot["data"]["people"][3] == [
        [1, [56, 40, 116, 200], [[0, [56, 40, 116, 200], 0.1], [2, [56, 60, 86, 90], 1.0]]]
    ]


def test_long_videos_have_as_many_bars_as_fit_and_hide_no_flag():
    rows = [moving(0, 0.9 if i == 2500 else 0.1) | {"time": i / 25} for i in range(5000)]
    hand = timeline(rows, THRESHOLDS)["people"][0]["lanes"][1]
    assert hand["normal"].count("M") == COLUMNS - 1 and hand["flagged"].count("M") == 1
    assert hand["flagged"].startswith("M500.0 ")


def test_the_worst_person_has_the_first_lanes():
    rows = [frame_row(0, moving(0, 0.1)["people"][0], moving(0, 0.9, number=1)["people"][0])]
    assert [p["id"] for p in timeline(rows, THRESHOLDS)["people"]] == [1, 0]


# A folder of results.


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    sources = make_results(folder, explain=half_heat)
    build_report(folder)
    return folder, sources


class Links(html.parser.HTMLParser):
    """Collects what a page refers to, and its tags."""

    def __init__(self, path):
        super().__init__()
        self.found, self.tags = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [v for k, v in attrs if k in ("src", "href")]
        assert not any(k.startswith("on") for k, _ in attrs), attrs


def test_every_link_is_relative_and_leads_to_a_file(results):
    folder, _ = results
    pages = [*(folder / "report").rglob("*.html")]
    assert len(pages) == 1 + len(HOSTILE)
    for page in pages:
        links = Links(page)
        for link in links.found:
            if link != "data:,":
                assert (page.parent / link.split("#")[0]).is_file(), (page, link)
        assert links.tags.count("script") <= 2


def test_pages_hold_what_they_must(results):
    folder, sources = results
    text = (Evidence(folder, THRESHOLDS).page(sources[0].stem) / "index.html").read_text()
    assert text.count('class="card"') == 1 and "0_heat.jpg" in text and "0_view.jpg" in text
    text = (folder / "report/index.html").read_text()
    assert "&lt;b&gt;bad&lt;/b&gt;.mp4" in text
    assert "{{ 7*7 }}" in text and ">49<" not in text
    assert text.count("<tr data-name=") == len(HOSTILE)
    assert f'within {MARGIN}">of the views close to a threshold' in text


def test_failures_come_first_and_videos_without_people_last(results):
    folder, sources = results
    with (folder / "report/scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [row["score"] for row in rows]
    assert scores[-1] == "" and scores[:-1] == sorted(scores[:-1], key=float)
    assert rows[0]["video"] == str(sources[0].path) and float(scores[0]) == 0
    assert rows[0]["people"] == "1" and rows[0]["views"] == "20"
    text = (folder / "report/index.html").read_text()
    assert 'data-kind="number" aria-sort="ascending"' in text


def test_a_name_in_the_csv_is_no_formula(tmp_path):
    make_results(tmp_path, names=["a.mp4"], frames=2)
    scores = json.loads((tmp_path / "scores.json").read_text())
    scores["videos"][0]["video_path"] = "=cmd|' /C calc'!A0.mp4"
    write_json(tmp_path / "scores.json", scores)
    build_report(tmp_path)
    assert "\n'=cmd" in (tmp_path / "report/scores.csv").read_text()


def test_parts_that_were_not_judged_are_absent(tmp_path):
    sources = make_results(tmp_path, names=["a.mp4", "b.mp4"], frames=3)
    scores = json.loads((tmp_path / "scores.json").read_text())
    for row in scores["videos"]:
        row["abnormal_by_part"] = {"human": None, "face": None, "hand": 0.5}
    write_json(tmp_path / "scores.json", scores)
    hands = [frame_row(i, person(part("hand", [20, 60, 50, 90], 0.5))) for i in range(3)]
    for source in sources:
        write_jsonl(tmp_path / f"{source.stem}.frames.jsonl", hands)
    assert list(judged_thresholds(scores)) == ["hand"]
    text = build_report(tmp_path).read_text()
    assert "Hand flagged" in text and "Human flagged" not in text and "Face flagged" not in text
    page = Evidence(tmp_path, THRESHOLDS).page(sources[0].stem) / "index.html"
    assert "<b>hand</b>" in page.read_text() and "<b>face</b>" not in page.read_text()


def test_warnings_of_all_scores_stand_on_every_page(results, tmp_path):
    assert not any("alarm" in p.read_text() for p in (results[0] / "report").rglob("*.html"))
    make_results(tmp_path, names=["a.mp4", "b.mp4"], frames=2)
    scores = json.loads((tmp_path / "scores.json").read_text())
    write_json(tmp_path / "scores.json", {**scores, "warnings": ["demo <weights>"]})
    build_report(tmp_path)
    pages = [page.read_text() for page in (tmp_path / "report").rglob("*.html")]
    banner = '<p class="notice alarm">demo &lt;weights&gt;</p>'
    assert [page.count(banner) for page in pages] == [1, 1, 1]


def test_settings_of_training_are_left_out(results):
    text = (results[0] / "report/index.html").read_text()
    assert "DETECTOR.SCORE_THR" in text and "TRAIN.EPOCHS" not in text
    shown = dict(scoring_settings({"changed": {"TEST.CROP": False, "TAG": "x"}, "fast": True}))
    assert shown == {"changed.TEST.CROP": "false", "fast": "true"}


def test_the_command_builds_the_same_pages_again(results):
    folder, _ = results
    before = {p: p.read_bytes() for p in (folder / "report").rglob("*.*") if p.is_file()}
    (folder / "report/index.html").unlink()
    command = [sys.executable, "-m", "tools.report", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "report/index.html" in done.stdout, done.stderr
    assert {p: p.read_bytes() for p in before} == before
    command[-1] = str(folder / "nothing")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "cannot read" in done.stderr


def test_pages_of_videos_that_are_gone_go_too(tmp_path):
    make_results(tmp_path, names=["a.mp4", "b.mp4"], frames=3)
    build_report(tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    write_json(tmp_path / "scores.json", {**scores, "videos": scores["videos"][:1]})
    build_report(tmp_path)
    assert len([*(tmp_path / "report/videos").iterdir()]) == 1


def test_video_without_evidence_still_has_a_page(tmp_path):
    sources = make_results(tmp_path, names=["a.mp4", "none.mp4"], frames=3)
    page = Evidence(tmp_path, THRESHOLDS).page(sources[0].stem)
    for file in page.iterdir():
        file.unlink()
    build_report(tmp_path)
    text = (page / "index.html").read_text()
    assert "There is no video here" in text and "<video" not in text


# Each row: a change of the content of scores.json or of the rows, and what the message says.
REFUSED = {
    "no thresholds": (lambda s, r: s["settings"].pop("thresholds"), "thresholds is missing"),
    "no file": (lambda s, r: s["videos"][0].pop("frames_file"), "no frames_file of"),
    "file elsewhere": (
        lambda s, r: s["videos"][0].update(frames_file="../a.frames.jsonl"),
        "no frames_file of",
    ),
    "people without id": (lambda s, r: r[0]["people"][0].pop("id"), "people have no id"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_results_that_cannot_be_used_are_refused(tmp_path, case):
    make_results(tmp_path, names=["a.mp4", "none.mp4"], frames=2)
    scores = json.loads((tmp_path / "scores.json").read_text())
    rows = [moving(0, 0.5), moving(1, 0.5)]
    change, message = REFUSED[case]
    change(scores, rows)
    write_json(tmp_path / "scores.json", scores)
    write_jsonl(tmp_path / "a.frames.jsonl", rows)
    with pytest.raises(UsageError, match=message):
        build_report(tmp_path)
