"""The pages' links lead to files."""

import re

import pytest
from conftest import ROOT


@pytest.mark.parametrize("name", ["README.md", "demo/README.md", "benchmarks/README.md"])
def test_links_lead_to_files(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []
