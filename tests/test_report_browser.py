"""The report in a real browser: keys, clicks, the filter, narrow windows, many videos."""

import json
import time

import numpy as np
import pytest
from browser import open_browser, requests_made
from report_results import (
    THRESHOLDS,
    frame_row,
    half_heat,
    make_results,
    part,
    person,
    video_summary,
    write_scores,
)

from human_anomaly.data.runs.marks import mark
from human_anomaly.data.video import Source
from human_anomaly.models.report.evidence import Evidence
from human_anomaly.models.report.page import build_report
from human_anomaly.utils import write_jsonl

COLUMN = """return [...document.querySelectorAll("table.videos tbody tr")]
  .map((row) => row.cells[arguments[0]].dataset.value)"""
SHOWN = """return [...document.querySelectorAll(arguments[0])]
  .filter((item) => item.offsetParent !== null).length"""
# Does something and returns the video's time after it; each seeks.
SEEK = """const done = arguments[1], video = document.querySelector("video");
  video.addEventListener("seeked", () => done(video.currentTime), { once: true });
  (new Function(arguments[0]))();"""
CLICK = """const box = document.querySelector(".axis").getBoundingClientRect();
  document.querySelector(".plot").dispatchEvent(new MouseEvent("click",
    { clientX: box.left + box.width * 12.5 / 20, clientY: box.top, bubbles: true }));"""
IN_VIEW = """const box = document.querySelector("video").getBoundingClientRect();
  return box.top >= 0 && box.bottom <= innerHeight && box.width > 100;"""
SMALLEST_TEXT = """return Math.min(...[...document.querySelectorAll("body *")]
  .filter((e) => e.offsetParent !== null && [...e.childNodes].some((n) => n.nodeType === 3 &&
    n.textContent.trim())).map((e) => parseFloat(getComputedStyle(e).fontSize)))"""
CUT = """return [...document.querySelectorAll("table, .stage, .timeline, .cards")]
  .filter((e) => e.scrollWidth > document.documentElement.clientWidth ||
    e.getBoundingClientRect().right > innerWidth).length"""


def key(name):
    event = f'new KeyboardEvent("keydown", {{ key: "{name}", bubbles: true }})'
    return f"document.body.dispatchEvent({event})"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    make_results(folder, explain=half_heat)
    return build_report(folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile"), size=(1400, 900)) as opened:
        yield opened


@pytest.fixture(autouse=True)
def quiet(browser, report):
    """No page of a test writes to the console or asks for anything outside of the report."""
    requests_made(browser)
    yield
    assert browser.get_log("browser") == []
    asked = [u for u in requests_made(browser) if not u.startswith(("data:", "chrome:"))]
    assert asked and all(url.startswith("file:///") for url in asked)


def set_width(browser, width):
    """Give pages this width; the browser's own window cannot be as narrow as a phone's."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def open_video(browser, report, number=0):
    browser.get(report.as_uri())
    browser.find_elements("css selector", "td.name a")[number].click()


def readout(browser):
    return browser.find_element("css selector", "#readout").text


def test_the_first_page_sorts_filters_and_finds(browser, report):
    browser.get(report.as_uri())
    values = browser.execute_script(COLUMN, 2)  # score: the worst come first
    assert values[-1] == "" and values[:-1] == sorted(values[:-1], key=float)
    assert browser.find_element("css selector", "th[aria-sort]").text.startswith("Score")
    browser.find_elements("css selector", "th button")[1].click()
    down = browser.execute_script(COLUMN, 2)
    assert down[-1] == "" and down[:-1] == sorted(values[:-1], key=float, reverse=True)
    chips = {chip.text: chip for chip in browser.find_elements("css selector", ".chips button")}
    everything = browser.execute_script(SHOWN, ".gallery a")
    assert everything == len(values) - 1  # a hand of each video with people
    chips["face"].click()
    assert browser.execute_script(SHOWN, ".gallery a") == 0
    chips["hand"].click()
    assert browser.execute_script(SHOWN, ".gallery a") == everything
    browser.find_element("css selector", "#search").send_keys("ALERT(1)")
    assert browser.execute_script(SHOWN, "tbody tr") == 1
    browser.find_element("css selector", "tr:not([hidden]) td.name a").click()
    assert "<script>alert(1)" in browser.find_element("css selector", "h1").text


def test_the_table_is_downloaded_by_a_click(browser, report, tmp_path):
    browser.get(report.as_uri())
    allow = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
    browser.find_element("css selector", "a[download]").click()
    got = tmp_path / "scores.csv"
    for _ in range(100):
        if got.exists():
            break
        time.sleep(0.05)
    assert got.read_text() == (report.parent / "scores.csv").read_text()


def test_a_crop_of_the_gallery_leads_to_its_moment_and_person(browser, report):
    browser.get(report.as_uri())
    browser.find_element("css selector", ".gallery a").click()
    assert "frame 0, 0.00 s" in readout(browser)
    assert browser.execute_script(SHOWN, ".over i.chosen") == 1


def test_clicks_and_keys_move_the_video(browser, report):
    open_video(browser, report, 1)
    assert 12 / 25 < browser.execute_async_script(SEEK, CLICK) < 13 / 25
    assert "frame 12, 0.48 s, score 1.00" in readout(browser)
    assert 13 / 25 < browser.execute_async_script(SEEK, key("ArrowRight")) < 14 / 25
    assert 12 / 25 < browser.execute_async_script(SEEK, key("ArrowLeft")) < 13 / 25
    assert browser.execute_async_script(SEEK, key("n")) < 1 / 25  # the first flagged one again
    assert "#0 hand 0.88" in readout(browser)
    browser.execute_script(key(" "))
    assert not browser.execute_script('return document.querySelector("video").paused')
    browser.execute_script(key(" "))
    assert browser.execute_script('return document.querySelector("video").paused')


@pytest.mark.parametrize("width", [1400, 420])
def test_a_click_on_a_crop_shows_the_person_in_the_video_that_is_in_view(browser, report, width):
    set_width(browser, width)
    open_video(browser, report)
    card = browser.find_element("css selector", ".card")
    browser.execute_script("arguments[0].scrollIntoView({ block: 'end' })", card)
    browser.execute_async_script(SEEK, 'document.querySelector(".card").click()')
    assert browser.execute_script(IN_VIEW)
    chosen = browser.find_element("css selector", ".over i.chosen")
    stage = browser.find_element("css selector", "#stage").rect
    # The person's box of frame 0 is 20, 40, 80, 200 in 320 x 240.
    assert chosen.rect["x"] - stage["x"] == pytest.approx(stage["width"] * 20 / 320, abs=3)
    assert chosen.rect["height"] == pytest.approx(stage["height"] * 160 / 240, abs=6)
    assert browser.find_element("css selector", ".over b.abnormal").text == "hand 0.90"
    browser.execute_script('document.getElementById("labels").click()')
    assert browser.execute_script(SHOWN, ".over b") == 0
    browser.execute_script('document.getElementById("boxes").click()')
    assert browser.execute_script(SHOWN, ".over i") == 0
    set_width(browser, 1400)


def test_a_phone_shows_everything_in_readable_text(browser, report):
    set_width(browser, 420)
    for page in [report, *report.parent.glob("videos/*/index.html")]:
        browser.get(page.as_uri())
        wide = "return document.documentElement.scrollWidth <= innerWidth"
        assert browser.execute_script(wide), page
        assert browser.execute_script(CUT) == 0, page
        assert browser.execute_script(SMALLEST_TEXT) >= 11, page
    set_width(browser, 1400)


def test_dark_mode_has_light_words_on_a_dark_page(browser, report):
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for page in (report, next(report.parent.glob("videos/*/index.html"))):
        browser.get(page.as_uri())
        style = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        words, ground = (
            [int(v) for v in colour[4:-1].split(",")]  # rgb(r, g, b)
            for colour in browser.execute_script(style)
        )
        assert min(words) > 200 and max(ground) < 50
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.slow
def test_five_hundred_videos_are_built_opened_and_sorted(browser, report, tmp_path):
    """Prints how long each takes (`pytest -m slow -s`)."""
    sample = make_results(tmp_path, names=["one.mp4", "none.mp4"], frames=10, explain=half_heat)[0]
    evidence = Evidence(tmp_path, THRESHOLDS, report=True)
    rng = np.random.default_rng(0)
    boxes = [[10, 20, 200, 400], [50, 30, 90, 70], [10, 90, 40, 120], [10, 90, 40, 120]]
    known = json.loads((evidence.page(sample.stem) / "evidence.json").read_text())
    videos = []
    for k in range(500):
        source = Source(tmp_path / f"v{k:03}.mp4", f"v{k:03}")
        rows = []
        for i in range(120):
            people = []
            for number in range(3):
                p = (0.5 * rng.random(4)).tolist()
                named = zip(("human", "face", "hand", "hand"), boxes, p, strict=True)
                people.append(person(*(part(*words) for words in named), number=number))
            rows.append(frame_row(i, *people))
        write_jsonl(evidence.rows(source.stem), rows)
        page = evidence.page(source.stem)
        page.mkdir(parents=True)
        for file in evidence.page(sample.stem).iterdir():
            (page / file.name).write_bytes(file.read_bytes())
        worst = [known["worst"][0] | {"person": n} for n in range(10)]
        content = known | {"worst": worst, "frames": mark(evidence.rows(source.stem))}
        (page / "evidence.json").write_text(json.dumps(content))
        videos.append(video_summary(source, rows))
    write_scores(tmp_path, videos)
    start = time.perf_counter()
    index = build_report(tmp_path)
    built = time.perf_counter() - start
    start = time.perf_counter()
    browser.get(index.as_uri())
    opened = time.perf_counter() - start
    start = time.perf_counter()
    browser.find_elements("css selector", "th button")[1].click()
    sorted_in = time.perf_counter() - start
    scores = [float(value) for value in browser.execute_script(COLUMN, 2)]
    print(f"built in {built:.1f} s, opened in {opened:.2f} s, sorted in {sorted_in:.2f} s")
    assert len(scores) == 500 and scores == sorted(scores, reverse=True)
    assert browser.execute_script(SHOWN, ".gallery a") == 24
