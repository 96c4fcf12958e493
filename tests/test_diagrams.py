"""The README: its pictures and links exist, and no words in its diagrams overlap."""

import itertools
import re
from pathlib import Path

import pytest

from demo.diagrams import draw_data_path, draw_training

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("draw", [draw_data_path, draw_training])
def test_no_words_overlap_or_leave_the_picture(draw, tmp_path):
    canvas = draw()
    canvas.save(tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size < 80_000
    places = [text.get_window_extent() for text in canvas.axes.texts]
    picture = canvas.figure.bbox
    assert all(picture.contains(*p.min) and picture.contains(*p.max) for p in places)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(places, 2))


@pytest.mark.parametrize("name", ["README.md", "demo/README.md", "tests/benchmarks/README.md"])
def test_links_lead_to_files(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []
