"""The training report's page: its figures, its mistakes, hostile names, and a real browser."""

import html
import json
import re

import numpy as np
import pytest
from browser import open_browser, requests_made
from drawn_crops import draw_crop
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.checks import draw_labels, draw_tiles, spread
from human_anomaly.data.cropping.crop_lists import view_of
from human_anomaly.data.dataset import read_manifest
from human_anomaly.models.training.metrics import measure, probabilities, reliability
from human_anomaly.models.training.report import worst_mistakes, write_report
from human_anomaly.utils import read_jsonl, write_jsonl

HAND = 0.32
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)<_script>_f000012_p0_1.png'
AUROCS = (0.5, 0.7, 0.9, 0.8)


def write_run(run):
    """A run's folder with four epochs, the third the best, and hand crops of eight videos."""
    rng = np.random.default_rng(0)
    names = [HOSTILE]
    for video in range(8):
        people = range(1 + video % 3)
        names += [f"v{video}_f{f:06}_p{p}_{p % 2}.png" for f in range(8) for p in people]
    run.mkdir()
    (run / "all_images").mkdir()
    for number, name in enumerate(names):
        draw_crop(rng, number % 2 == 1, 40).save(run / "all_images" / name)
    write_jsonl(run / "hand_test.jsonl", [[n, i % 2, 0.9] for i, n in enumerate(names)])
    crops = read_manifest(run / "hand_test.jsonl", abnormal_label="1")
    logits = np.where(crops.targets == 1, 1.0, -2.5) + rng.normal(0, 1.5, len(crops))
    logits[0] = 5.0  # the hostile one is the clearest false flag
    for name in ("ckpt3.pth", "last.pth", "best.pth", "ckpt0.pth"):
        (run / name).touch()
    opts = ("TRAIN.EPOCHS", "4", "SEED", "7")
    (run / "config.yaml").write_text(get_config(None, opts).dump())
    return crops, logits


def epoch_rows(metrics):
    rows = [{"epoch": 0, "step": 0, "at": 0.5, "loss": 0.7}]
    for epoch, auroc in enumerate(AUROCS):
        val = {**metrics, "auroc": auroc, "loss": 0.7 - 0.1 * epoch}
        rows.append({"epoch": epoch, "train_loss": 0.8 - 0.1 * epoch, "val": val})
    return rows


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = tmp_path_factory.mktemp("training") / "run"
    crops, logits = write_run(run)
    metrics = measure(crops.targets, logits, HAND)
    before = logits - 1
    rows = epoch_rows(metrics)
    write_report(
        run / "report", run / "ckpt3.pth", crops, logits, metrics, history=rows, before=before
    )
    return run / "report", crops, logits, metrics


def page_of(report):
    return (report[0] / "index.html").read_text()


def path_of(page, title, style):
    """Return the (N, 2) points of the first path of this style in the figure of this title."""
    figure = page[page.index(f"<b>{title}") :]
    path = re.search(rf'<path class="{style}" d="M([^"]*)"', figure)[1]
    return np.array([point.split() for point in path.split("L")], float) / 100


def test_tiles_are_the_metrics(report):
    _, crops, _, metrics = report
    tiles = re.findall(r'class="tile"><b>(.*?)</b><span>(.*?)</span>', page_of(report))
    abnormal = int(crops.targets.sum())
    counts = metrics["confusion"]
    assert dict(reversed(tile) for tile in tiles) == {
        "AUROC": f"{metrics['auroc']:.3f}",
        "average precision": f"{metrics['average_precision']:.3f}",
        f"F1 at 0.32, best {metrics['best_f1']:.3f} at {metrics['best_f1_threshold']:.3g}": (
            f"{metrics['f1']:.3f}"
        ),
        "balanced accuracy": f"{metrics['balanced_accuracy']:.3f}",
        "abnormal crops found": f"{counts['abnormal_flagged']} / {abnormal}",
        "normal crops flagged": f"{counts['normal_flagged']} / {len(crops) - abnormal}",
        "calibration error": f"{metrics['calibration_error']:.3f}",
    }


def test_curves_are_the_crops(report):
    """Every point is where scikit-learn, the bins and the log put it; y grows downwards in SVG."""
    _, crops, logits, metrics = report
    page, p = page_of(report), probabilities(logits)
    false_rate, true_rate, _ = roc_curve(crops.targets, p)
    points = path_of(page, "ROC", "a")
    np.testing.assert_allclose(points, np.stack([false_rate, 1 - true_rate], 1), atol=1e-4)
    precision, recall, _ = precision_recall_curve(crops.targets, p, drop_intermediate=True)
    points = path_of(page, "Precision", "a")
    np.testing.assert_allclose(points, np.stack([recall, 1 - precision], 1), atol=1e-4)
    rows = reliability(crops.targets, p)
    expected = [[row["p"], 1 - row["abnormal"]] for row in rows]
    np.testing.assert_allclose(path_of(page, "Reliability", "a dotted"), expected, atol=1e-4)
    # The axes of epochs end at ticks: 0 to 3, and 0.5 to 1.
    expected = [[epoch / 3, (1 - auroc) / 0.5] for epoch, auroc in enumerate(AUROCS)]
    np.testing.assert_allclose(path_of(page, "Validation", "a dotted"), expected, atol=1e-4)
    counts = metrics["confusion"]
    for label in ("normal", "abnormal"):
        flagged = counts[f"{label}_flagged"]
        total = flagged + counts[f"{label}_passed"]
        assert f">{label}</b>: {flagged} of {total} crops above 0.32" in page


def test_last_and_best_epoch_are_named_and_linked(report):
    text = re.sub(r"<(?!/?a)[^>]*>", " ", page_of(report))
    rows = [" ".join(row.split()) for row in re.findall(r"(?:best|last) *:.*?\n.*\n", text)]
    link = '<a href="../{0}">{0}</a>'.format
    assert rows[0].startswith(f"best : {link('best.pth')} 2 0.900")
    assert rows[1].startswith(f"last : {link('ckpt3.pth')}, {link('last.pth')} 3 0.800")
    every = text[text.index("All 4 epochs") :]
    assert f"{link('ckpt0.pth')} 0 0.500" in " ".join(every.split())
    assert "All were measured before the calibration." in text


def test_a_run_whose_last_epoch_is_its_best(tmp_path):
    crops, logits = write_run(tmp_path / "run")
    metrics = measure(crops.targets, logits, HAND)
    rows = epoch_rows(metrics)[:2]  # one epoch
    report = tmp_path / "run/report"
    write_report(report, tmp_path / "run/ckpt0.pth", crops, logits, metrics, history=rows)
    assert "<b>last and best</b>" in (report / "index.html").read_text()


def test_settings_are_those_that_were_changed(report):
    found = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page_of(report)))
    assert found["TRAIN.EPOCHS"] == "4 (default 30)" and found["SEED"] == "7 (default 0)"
    assert found["part"] == "hand" and found["abnormal_label"] == "1"
    assert not [key for key in found if key.startswith("AUG")]


def test_a_hostile_name_stays_text(report):
    page = page_of(report)
    assert "<script>alert" not in page and "<img src=x" not in page
    assert html.escape(HOSTILE).replace("&quot;", "&#34;") in page
    shown = page[page.index('data-group="flagged"', page.index('class="gallery"')) :]
    assert shown.index("frame 12, person 0") < shown.index("</a>")


def test_the_page_needs_its_own_folder_only(report):
    page = page_of(report)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    files = set(re.findall(r'(?:src|href)="([^"]*)"', page)) - {"data:,"}
    own = {file for file in files if not file.startswith("../")}
    assert {"page.css", "index.js", "val_predictions.csv", "mistakes/0.jpg"} <= own
    assert all((report[0] / file).is_file() for file in files)
    assert own - {"page.css", "index.js", "val_predictions.csv"} == {
        str(file.relative_to(report[0])) for file in (report[0] / "mistakes").iterdir()
    }


def test_mistakes_are_spread_over_people_and_videos():
    """One video has 90 wrong crops of three people, all clearer than those of ten other videos."""
    names = [f"long_f{frame:06}_p{person}.jpg" for frame in range(30) for person in range(3)]
    names += [f"v{video}_f000003_p0_1.jpg" for video in range(10)]
    p = np.linspace(0.99, 0.6, len(names))
    targets = np.zeros(len(names), int)
    found = [names[row] for row in worst_mistakes(names, targets, p, HAND)]
    assert found[:3] == [f"long_f000000_p{person}.jpg" for person in range(3)]
    assert found[3:] == names[90:]
    # Where not all fit, each video shows its clearest one before any shows a second.
    found = [names[row] for row in worst_mistakes(names, targets, p, HAND, most=11)]
    assert found == ["long_f000000_p0.jpg", *names[90:]]
    # Other names say nothing about people: each is taken.
    assert spread(["a/1.png", "b/1.png", "2.png"], [2, 0, 1], 9) == [2, 0, 1]


def test_label_sheet_shows_each_person_once(tmp_path):
    """Of 40 crops of two people, two are shown per label; each has its own tone of red."""
    (tmp_path / "all_images").mkdir()
    rows = []
    for i in range(40):
        name, tone = f"a_f{i:06}_p{i % 4 // 2}.png", 100 + 40 * (i % 4 // 2)
        Image.new("RGB", (16, 16), (tone, 0, 0)).save(tmp_path / "all_images" / name)
        rows.append([name, i % 2, 0.9])
    write_jsonl(tmp_path / "hand_train.jsonl", rows)
    sheet = np.asarray(draw_labels(read_manifest(tmp_path / "hand_train.jsonl"), size=64))
    for tone in (100, 140):
        assert (sheet == (tone, 0, 0)).all(2).sum() == 2 * 64 * 64


def test_captions_are_broken_not_cut():
    """The name is 120 letters I: as many dark columns lie on the sheet as without the breaks."""
    image = Image.new("RGB", (40, 40), "white")

    def strokes(columns, size):
        sheet = np.asarray(
            draw_tiles([(image, "I" * 120)], columns=columns, size=size).convert("L")
        )
        return (sheet < 128).any(1).sum(), (sheet < 128).sum()

    lines, dark = strokes(1, 160)
    one_line, whole = strokes(1, 1600)
    assert dark == whole and lines > 2 * one_line


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile"), size=(1400, 900)) as opened:
        yield opened


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_in_a_browser(browser, report, width):
    """It fits, asks for nothing but its files, filters, and no words lie over a curve."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    requests_made(browser)
    browser.get((report[0] / "index.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    over = """return [...document.querySelectorAll(".legend, .plane span")].filter((words) => {
      const a = words.getBoundingClientRect();
      return [...document.querySelectorAll(".plane svg")].some((svg) => {
        const b = svg.getBoundingClientRect();
        return a.left < b.right && a.right > b.left && a.top < b.bottom && a.bottom > b.top;
      });
    }).length"""
    assert browser.execute_script(over) == 0
    kinds = """return [...document.querySelectorAll(".gallery a")]
      .filter((a) => a.offsetParent).map((a) => a.dataset.group)"""
    everything = browser.execute_script(kinds)
    assert {"missed", "flagged"} == set(everything)
    chips = {chip.text: chip for chip in browser.find_elements("css selector", ".chips button")}
    chips["missed"].click()
    missed = everything.count("missed")
    assert browser.execute_script(kinds) == ["missed"] * missed
    chips["all"].click()
    assert browser.execute_script(kinds) == everything
    assert browser.get_log("browser") == []
    asked = [u for u in requests_made(browser) if not u.startswith(("data:", "chrome:"))]
    assert asked and all(url.startswith("file:///") for url in asked)


def test_view_of_a_name():
    assert view_of("a_f0_p1_f000012_p3_1.jpg") == ("a_f0_p1", 12, 3)
    assert view_of("clip_f1234567_p0.png") == ("clip", 1234567, 0)
    assert view_of("human_train_2.jpg") is None


def test_metrics_are_written_last(report):
    found = json.loads((report[0] / "metrics.json").read_text())
    assert found["metrics"] == report[3] and len(read_jsonl(report[1].path)) == len(report[1])
