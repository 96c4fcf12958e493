"""The page on which a person labels crops."""

import json
import os
import time
from pathlib import Path

import pytest
from browser import open_browser, requests_made
from label_runs import NAMES, page_data, sort_into
from preprocess_runs import rows_of

from human_anomaly.tools import label
from human_anomaly.utils import UsageError, write_json, write_jsonl


@pytest.fixture
def folder(crop_folder: Path) -> Path:
    return crop_folder


def test_the_label_pages_json(folder: Path, tmp_path_factory):
    labels = {f"hand/{NAMES[0]}": 0, f"hand/{NAMES[2]}": 1}
    write_json(folder / "labels.json", labels)
    assert label.main([str(folder)]) == 0
    assert rows_of(folder / "hand.jsonl") == [[NAMES[0], 0, 0.0], [NAMES[2], 1, 0.25]]
    other = tmp_path_factory.mktemp("other") / "labels (1).json"
    write_json(other, {f"face/{NAMES[3]}": 1})
    assert label.main([str(folder), "--labels", str(other)]) == 0
    assert rows_of(folder / "hand.jsonl") == []
    assert rows_of(folder / "face.jsonl") == [[NAMES[3], 1, 3 / 8]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r'labels.json: expected {"hand/NAME.jpg": 0 or 1, ..}'),
        ('{"hand/x.jpg": 1}', r"labels.json: no such crop: hand/x.jpg; nothing was"),
        (f'{{"hand/{NAMES[0]}": true}}', r"labels.json: label is 'True', expected 0, 1"),
        (f'{{"hand/{NAMES[0]}": 0', r"labels.json: not JSON"),
        (f'hand/{NAMES[0]},0\n"hand/{NAMES[1]},0\n', r"labels.csv:2: .* a quote not closed"),
    ],
)
def test_a_wrong_file_writes_nothing(folder: Path, text: str, message: str):
    (folder / message.split(":")[0]).write_text(text)
    with pytest.raises(UsageError, match=message):
        label.main([str(folder)])
    assert not (folder / "hand.jsonl").exists()


def test_the_page_shows_what_is_left_by_p(folder: Path):
    sort_into(folder, "normal", 0)
    (folder / "labels.csv").write_text(f"hand/{NAMES[1]},1\n")
    write_json(folder / "labels.json", {f"hand/{NAMES[4]}": 1})
    write_json(folder / "p_abnormal.json", {f"hand/{NAMES[i]}": i / 10 for i in (3, 4, 5)})
    parts = page_data(folder)
    assert [row["file"] for row in parts["face"]] == [f"face/{name}" for name in NAMES]
    shown = [(row["file"].removeprefix("hand/"), row["p"], row["label"]) for row in parts["hand"]]
    judged = [(NAMES[5], 0.5, None), (NAMES[4], 0.4, 1), (NAMES[3], 0.3, None)]
    assert shown == [*judged, (NAMES[2], None, None), *[(name, None, None) for name in NAMES[6:]]]
    assert not (folder / "hand.jsonl").exists()
    (folder / "p_abnormal.json").write_text("[]")
    with pytest.raises(UsageError, match=r"p_abnormal.json: expected"):
        label.main([str(folder), "--page"])


def test_a_written_page_shows_crops_that_were_moved_since(folder: Path, monkeypatch):
    for links in (True, False):  # a file system may have no hard links
        page_data(folder)
        bytes_before = {name: (folder / "hand" / name).read_bytes() for name in NAMES}
        sort_into(folder, "normal", 0)
        (folder / "hand" / NAMES[1]).rename(folder.parent / "elsewhere.jpg")
        text = (folder / "label.html").read_text()
        rows = json.loads(text.split('id="data">')[1].split("</script>")[0])["parts"]["hand"]
        assert {row["file"]: (folder / row["place"]).read_bytes() for row in rows} == {
            f"hand/{name}": content for name, content in bytes_before.items()
        }
        assert (os.stat(folder / rows[2]["place"]).st_nlink == 2) == links
        (folder / "hand/normal" / NAMES[0]).rename(folder / "hand" / NAMES[0])
        (folder.parent / "elsewhere.jpg").rename(folder / "hand" / NAMES[1])
        monkeypatch.setattr(os, "link", refuse)
    assert label.main([str(folder)]) == 0  # the links are no crops
    assert rows_of(folder / "hand.jsonl") == []


def refuse(*args):
    raise PermissionError(1, "Operation not permitted")


HOSTILE = """a'"><img src=x onerror=alert(1)>&#39;`${alert(2)}%41 ü_f000000_p0_0.jpg"""


@pytest.fixture
def hostile_folder(folder: Path) -> Path:
    """Return the folder of crops under a name, and with a crop of a name, that attack the page."""
    folder = folder.rename(folder.parent / "`${alert(3)}` <b>&'")
    (folder / "hand" / NAMES[0]).rename(folder / "hand" / HOSTILE)
    boxes = rows_of(folder / "boxes.jsonl")
    for row in boxes:
        if row["file"] == f"hand/{NAMES[0]}":
            row["file"] = f"hand/{HOSTILE}"
    write_jsonl(folder / "boxes.jsonl", boxes)
    return folder


def test_the_page_labels_by_keys_and_clicks(hostile_folder: Path, tmp_path_factory):
    folder, downloads = hostile_folder, tmp_path_factory.mktemp("downloads")
    p = {f"hand/{name}": i / 10 for i, name in enumerate(NAMES)} | {f"hand/{HOSTILE}": 0.95}
    write_json(folder / "p_abnormal.json", p)
    label.main([str(folder), "--page"])
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.execute_cdp_cmd(
            "Browser.setDownloadBehavior",
            {"behavior": "allow", "downloadPath": str(downloads)},
        )

        def click(selector: str) -> None:
            browser.find_element("css selector", selector).click()

        def press(*keys: str) -> None:
            for key in keys:
                browser.execute_script(
                    "document.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))", key
                )

        def asks_before_leaving() -> bool:
            event = "new Event('beforeunload', {cancelable: true})"
            return not browser.execute_script(f"return window.dispatchEvent({event})")

        def text(selector: str) -> str:
            return browser.find_element("css selector", selector).text

        browser.get((folder / "label.html").as_uri())
        assert text("h1") == f"Crops to label, folder {folder.name}"
        assert text("#parts") == "face 0/8\nhand 0/8"
        click("#parts button:nth-child(2)")
        press("1", "0")  # the hostile one, then the likeliest of the others: NAMES[7]
        assert text("#count") == "2 of 16 labelled, not all saved"
        press("ArrowRight", "1", "u", "u")  # the last undoes the label 0 of NAMES[7]
        assert text("#count") == "1 of 16 labelled, not all saved"
        press("1", "ArrowLeft", "x", "0")  # a label can be taken away and given again
        click("#grid button:nth-child(8)")  # the least likely
        click("#normal")
        # What a new page of this address does first; the next test loads it again.
        browser.execute_script("labels.clear(); unsaved = false; part = names[0]; recall(); show()")
        assert text("#parts") == "face 0/8\nhand 3/8"
        assert text("#count") == "3 of 16 labelled, not all saved"
        assert asks_before_leaving()
        click("#rest")  # all eight faces
        assert text("#count") == "11 of 16 labelled, not all saved"
        click("#undo")
        click("#save")
        assert text("#count") == "3 of 16 labelled"
        assert not asks_before_leaving()
        assert "3 labels" in text("#saved") and f"Move it into the folder {folder.name}" in text(
            "#saved"
        )
        loaded = browser.execute_script(
            "return [...document.querySelectorAll('#grid img, #large')].every(i => i.naturalWidth)"
        )
        assert loaded
        deadline = time.monotonic() + 10
        while not (downloads / "labels.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        problems = [entry["message"] for entry in browser.get_log("browser")]
        outside = [url for url in requests_made(browser) if url.startswith(("http", "ws"))]
    assert problems == [] and outside == []
    (downloads / "labels.json").rename(folder / "labels.json")
    assert label.main([str(folder)]) == 0
    assert {row[0]: row[1] for row in rows_of(folder / "hand.jsonl")} == {
        HOSTILE: 1,
        NAMES[7]: 0,
        NAMES[1]: 0,
    }
    assert [row["label"] for row in page_data(folder)["hand"]] == [1, 0] + [None] * 5 + [0]


def test_labels_are_there_after_a_reload(folder: Path, tmp_path_factory):
    label.main([str(folder), "--page"])
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.get((folder / "label.html").as_uri())
        browser.find_element("id", "abnormal").click()
        stored = "return localStorage.length"
        assert browser.execute_script(stored) == 1
        browser.refresh()
        if not browser.execute_script(stored):
            pytest.skip("Chromium lost what the page had stored, as in whole runs of the tests")
        assert browser.find_element("id", "count").text == "1 of 16 labelled, not all saved"
