"""A folder of unlabelled crops, labels in it, and its page."""

import json
from pathlib import Path

from human_anomaly.tools import label

NAMES = [f"{source}_f{i:06d}_p0_0.jpg" for source in ("a", "b") for i in range(4)]


def sort_into(folder: Path, word: str, *numbers: int, part: str = "hand") -> None:
    (folder / part / word).mkdir(exist_ok=True)
    for i in numbers:
        (folder / part / NAMES[i]).rename(folder / part / word / NAMES[i])


def page_data(folder: Path) -> dict:
    assert label.main([str(folder), "--page"]) == 0
    text = (folder / "label.html").read_text()
    return json.loads(text.split('id="data">')[1].split("</script>")[0])["parts"]
