"""The pages' links lead to files, and to headings in them."""

import re

import pytest
from conftest import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", "demo/README.md", "benchmarks/README.md"]
PAGES += ["tests/robustness/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


def anchors(page) -> set[str]:
    """Return the names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
