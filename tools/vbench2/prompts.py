"""VBench-2.0's prompts, and the names that it gives their videos: `<prompt>-<0..2>.mp4`."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from human_anomaly.utils import UsageError

DIMENSION = "Human_Anatomy"
STANDARD, CUSTOM = "vbench_standard", "custom_input"  # the modes: which files are scored
PER_PROMPT = 3
_NAME_LENGTH = 180  # the benchmark cuts longer prompts in file names


def prompt_and_index(path: str) -> tuple[str, int] | None:
    """Return (prompt, index) of a file in the benchmark's naming, None for another name."""
    match = re.fullmatch(r"(.*)-(\d+)", Path(path.replace("\\", "/")).stem, re.DOTALL)
    return (match[1], int(match[2])) if match else None


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of Human Anatomy in a file, in its order.

    The file is a text with a prompt per line, or JSON as the benchmark has it: a list of prompts,
    a list of objects with `prompt_en`, or an object with prompts as keys. Objects with another
    `dimension` than Human_Anatomy are left out. Raises UsageError naming the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts: cannot read {path}: {error}") from error
    if path.suffix.lower() == ".json":
        prompts = _prompts_in_json(path, text)
    else:
        prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UsageError(f"--prompts: {path} holds no prompt of {DIMENSION}")
    return list(dict.fromkeys(prompts))


def _prompts_in_json(path: Path, text: str) -> list[str]:
    wrong = UsageError(
        f"--prompts: {path}: expected JSON with a list of prompts, a list of objects with "
        "prompt_en, or an object with prompts as keys"
    )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if isinstance(content, dict):
        entries = list(content.items())
    elif isinstance(content, list):
        entries = [(row.get("prompt_en") if isinstance(row, dict) else row, row) for row in content]
    else:
        raise wrong
    if not all(isinstance(prompt, str) for prompt, _ in entries):
        raise wrong
    return [prompt for prompt, about in entries if _is_wanted(about)]


def _is_wanted(about: object) -> bool:
    if not isinstance(about, dict) or "dimension" not in about:
        return True
    named = about["dimension"]
    return DIMENSION in (named if isinstance(named, list) else [named])


def standard_names(present: Iterable[str], prompts: list[str] | None) -> list[str]:
    """Return the file names that the benchmark expects, in its order.

    Without `prompts`, the prompts are taken from the files `present` and sorted, which leaves out
    a prompt without any video. A file's suffix may be in any case.
    """
    present = sorted(present)  # .MP4 before .mp4, which is the name that the benchmark knows
    if prompts is None:
        parsed = [prompt_and_index(name) for name in present]
        prompts = sorted({prompt for prompt, index in filter(None, parsed) if index < PER_PROMPT})
    starts = dict.fromkeys(prompt[:_NAME_LENGTH] for prompt in prompts)  # cut ones may be equal
    named = {name[:-4] + name[-4:].lower(): name for name in present}
    wanted = [f"{start}-{index}.mp4" for start in starts for index in range(PER_PROMPT)]
    return [named.get(name, name) for name in wanted]


def mp4_names(folder: Path) -> list[str]:
    """Return the names of the .mp4 files directly in `folder`, sorted; hidden ones are left out."""
    if not folder.is_dir():
        raise UsageError(f"--videos: no such folder: {folder}")
    files = (path for path in folder.iterdir() if path.suffix.lower() == ".mp4" and path.is_file())
    return sorted(path.name for path in files if not path.name.startswith("."))
