"""The pages' links lead to files, and the two diagrams say what the defaults say."""

import re
from xml.etree import ElementTree

import pytest
from conftest import ROOT

from human_anomaly.configs.defaults import get_config, thresholds

PICTURES = ROOT / "demo/pictures"
SVG = "{http://www.w3.org/2000/svg}"


def words(name: str) -> list[str]:
    """Return the lines of text that the diagram shows."""
    return [text.text for text in ElementTree.parse(PICTURES / name).iter(f"{SVG}text")]


def test_the_data_path_names_the_thresholds_and_what_the_score_counts():
    shown = words("data_path.svg")
    for threshold in thresholds(get_config()).values():
        assert f"p > {threshold:g}" in shown
    after = shown[shown.index("video_results") + 1 :][:3]
    assert " ".join(after) == "share of normal person views over all frames"


def test_the_training_diagram_names_what_a_run_writes():
    shown = words("training.svg")
    assert f"ckpt{get_config().TRAIN.EPOCHS - 1}.pth" in shown
    assert {"main_finetune.py", "last.pth", "report/"} <= set(shown)


@pytest.mark.parametrize("name", ["data_path.svg", "training.svg"])
def test_text_is_large_enough_at_the_width_of_a_page(name):
    root = ElementTree.parse(PICTURES / name).getroot()
    assert root.get("width") == "900"
    sizes = re.findall(r"font-size: ([\d.]+)px", root.find(f"{SVG}style").text)
    assert sizes and min(map(float, sizes)) >= 12


@pytest.mark.parametrize("name", ["README.md", "demo/README.md", "tests/benchmarks/README.md"])
def test_links_lead_to_files(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []
