"""--label-every: one decision labels a person's crops of neighbouring frames."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image
from preprocess_runs import rows_of

from human_anomaly.models.scoring.tracks import Decisions
from human_anomaly.tools import label
from human_anomaly.utils import UsageError, write_json, write_jsonl


def frame(**boxes):
    """Return the people of a frame: one person with a box of each part given as part=[x, ..]."""
    parts = [
        SimpleNamespace(part=part, bbox=(x, 50, x + 60, 200))
        for part, places in boxes.items()
        for x in places
    ]
    return [SimpleNamespace(parts=parts)]


def test_each_hand_of_each_window_has_a_name_of_its_own():
    name = Decisions(3).name
    seen = [frame(human=[100], hand=[10 + 3 * i, 300 - 3 * i]) for i in range(5)]
    seen[1] = frame(hand=[297, 13], human=[103])  # in another order
    found = [[row["decision"] for row in name(people)] for people in seen]
    assert found[0] == found[2] == ["0.0", "0.0", "1.0"]
    assert found[1] == ["1.0", "0.0", "0.0"]
    assert found[3] == found[4] == ["0.1", "0.1", "1.1"]
    assert [row["decision"] for row in name(frame(hand=[900]))] == ["2.1"]  # somebody else
    assert name([]) == []


def test_rows_and_folders_with_and_without(videos, crop, tmp_path):
    crop(videos, tmp_path / "each")
    crop(videos, tmp_path / "every", "--label-every", "4")
    each, every = (rows_of(tmp_path / name / "boxes.jsonl") for name in ("each", "every"))
    for row, named in zip(each, every, strict=True):
        assert named["decision"].split(".")[1] == str(row["frame"] // 4)
        assert named == row | {"decision": named["decision"]}
    assert crop(videos, tmp_path / "each", "--label-every", "1") == 0  # as it was
    with pytest.raises(UsageError, match="label_every differ"):
        crop(videos, tmp_path / "each", "--label-every", "4")


NAMES = [f"a_f{i:06d}_p0_0.jpg" for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    """Return six hands: decision 0.0 is of the first four, 0.1 of the others."""
    (tmp_path / "hand").mkdir()
    rows = []
    for i, name in enumerate(NAMES):
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(tmp_path / "hand" / name)
        row = {"source": "a", "score": 0.5, "label": None, "file": f"hand/{name}"}
        rows.append(row | {"decision": f"0.{i // 4}"})
    write_jsonl(tmp_path / "boxes.jsonl", rows)
    return tmp_path


def labels(folder):
    assert label.main([str(folder)]) == 0
    return {row[0].split("/")[-1]: row[1] for row in rows_of(folder / "hand.jsonl")}


def page(folder):
    assert label.main([str(folder), "--page"]) == 0
    text = (folder / "label.html").read_text()
    return json.loads(text.split('id="data">')[1].split("</script>")[0])["parts"].get("hand", [])


@pytest.mark.parametrize("way", ["page", "folder", "csv"])
def test_one_label_is_for_all_crops_of_the_decision(folder, way):
    if way == "page":
        write_json(folder / "labels.json", {f"hand/{NAMES[2]}": 1})
    elif way == "csv":
        (folder / "labels.csv").write_text(f"hand/{NAMES[0]},abnormal\n")
    else:
        (folder / "hand/abnormal").mkdir()
        (folder / "hand" / NAMES[3]).rename(folder / "hand/abnormal" / NAMES[3])
    assert labels(folder) == dict.fromkeys(NAMES[:4], 1)


def test_a_crop_may_have_a_label_of_its_own(folder):
    text = f"hand/{NAMES[0]},1\nhand/{NAMES[1]},0\nhand/{NAMES[5]},0\n"
    (folder / "labels.csv").write_text(text)
    assert labels(folder) == {NAMES[0]: 1, NAMES[1]: 0, NAMES[4]: 0, NAMES[5]: 0}


def test_the_page_asks_once(folder):
    rows = page(folder)
    assert [row["file"] for row in rows] == [f"hand/{NAMES[2]}", f"hand/{NAMES[5]}"]  # the middle
    assert rows[0]["view"] == "f000002_p0_0.jpg, one label for 4 crops"
    write_json(folder / "p_abnormal.json", {f"hand/{NAMES[i]}": i / 10 for i in (0, 1, 4)})
    assert [(row["file"], row["p"]) for row in page(folder)] == [
        (f"hand/{NAMES[4]}", 0.4),
        (f"hand/{NAMES[1]}", 0.1),
    ]
    write_json(folder / "labels.json", {f"hand/{NAMES[3]}": 0})  # given earlier, to another crop
    assert [row["label"] for row in page(folder)] == [None, 0]
    (folder / "labels.csv").write_text(f"hand/{NAMES[3]},0\n")
    assert [row["file"] for row in page(folder)] == [f"hand/{NAMES[4]}"]


def test_the_template_asks_once(folder):
    assert label.main([str(folder), "--template"]) == 0
    lines = (folder / "labels.csv").read_text().splitlines()
    assert lines == ["file,label", f"hand/{NAMES[0]},", f"hand/{NAMES[4]},"]
