"""VBench-2.0's names of videos, and the files that hold its prompts."""

import json

import pytest

from human_anomaly.tools.vbench2.prompts import prompt_and_index, read_prompts, standard_names
from human_anomaly.utils import UsageError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("out/people are walking.-1.mp4", ("people are walking.", 1)),
        ("a-b-c-02.mp4", ("a-b-c", 2)),
        ('<script>"x"-0.mp4', ('<script>"x"', 0)),
        ("walk.mp4", None),
        ("walk-.mp4", None),
    ],
)
def test_benchmark_naming(name, expected):
    assert prompt_and_index(name) == expected


def test_names_without_prompts_are_those_seen():
    present = ["b-1.mp4", "a-0.mp4", "a-0.mp4", "clip-2024.mp4", "notes.mp4"]
    assert standard_names(present, None) == [f"{p}-{i}.mp4" for p in "ab" for i in range(3)]
    long = "y" * 190
    assert standard_names([], [long + "1", long + "2"]) == [
        f"{'y' * 180}-{i}.mp4" for i in range(3)
    ]


def test_a_name_may_have_its_suffix_in_any_case():
    present = ["a-0.MP4", "a-1.Mp4", "a-1.mp4"]
    assert standard_names(present, None) == ["a-0.MP4", "a-1.mp4", "a-2.mp4"]


FULL_INFO = [
    {"prompt_en": "walk", "dimension": ["Human_Anatomy", "Human_Identity"]},
    {"prompt_en": "a cat", "dimension": ["Physics"]},
    {"prompt_en": "run", "dimension": "Human_Anatomy"},
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "\ufeffwalk\r\n\r\nrun\r\nwalk\n"),
        ("Human_Anatomy.json", json.dumps([{"prompt_en": "walk"}, {"prompt_en": "run"}])),
        ("list.json", json.dumps(["walk", "run"])),
        ("VBench2_full_info.json", json.dumps(FULL_INFO)),
        ("by_prompt.json", json.dumps({"walk": {"dimension": ["Human_Anatomy"]}, "run": "x"})),
        ("full.json", json.dumps({row["prompt_en"]: row for row in FULL_INFO})),
    ],
)
def test_prompt_files(name, text, tmp_path):
    (tmp_path / name).write_text(text, newline="")
    assert read_prompts(tmp_path / name) == ["walk", "run"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.json", "{", "expected JSON with a list of prompts"),
        ("p.json", "3", "expected JSON with a list of prompts"),
        ("p.json", '[{"prompt": 1}]', "expected JSON with a list of prompts"),
        ("p.json", '[{"prompt_en": "cat", "dimension": ["Physics"]}]', "holds no prompt of Human"),
        ("p.txt", "\n", "holds no prompt"),
        ("none.txt", None, "cannot read"),
    ],
)
def test_what_is_no_prompt_file(name, text, words, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        read_prompts(tmp_path / name)
