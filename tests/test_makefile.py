"""Which Python `make` takes, and what it says where there is none; nothing is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(folder: Path, pythons: dict[str, str], *words: str) -> subprocess.CompletedProcess:
    """Run make in `folder` where `pythons` (name to version) are all that the path holds.

    They are scripts that compare versions as asked, and log when they are told to do more.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name in ("make", "sh", "echo"):
        os.symlink(shutil.which(name), bin_folder / name)
    for name, version in pythons.items():
        major, minor = version.split(".")[:2]
        known = major == "3" and 11 <= int(minor) <= 14
        script = bin_folder / name
        script.write_text(
            "#!/bin/sh\n"
            f'case "$1" in -c) exit {0 if known else 1};; -V) echo Python {version};;\n'
            f'*) echo "{name} $*"; exit 7;; esac\n'
        )
        script.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
        os.utime(folder / name, (0, 0))  # older than what a test made before
    environment = {"PATH": str(bin_folder)}
    command = ["make", "demo", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


# What there is, and which one is taken.
TAKEN = [
    ({"python3": "3.11.7", "python3.12": "3.12.1"}, "python3"),
    ({"python3": "3.8.18", "python3.12": "3.12.1", "python3.11": "3.11.7"}, "python3.12"),
    ({"python3": "3.15.0", "python3.11": "3.11.7"}, "python3.11"),
    ({"python3.14": "3.14.0", "python3.12": "3.12.1"}, "python3.12"),
    ({"python3.11": "3.11.7"}, "python3.11"),
]


@pytest.mark.parametrize(("pythons", "taken"), TAKEN)
def test_first_known_python_is_taken(tmp_path, pythons, taken):
    assert make(tmp_path, pythons).stdout.splitlines()[-1] == f"{taken} -m venv .venv"


def test_a_killed_installation_is_done_again(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    assert make(tmp_path, {"python3": "3.12.1"}).stdout.endswith("python3 -m venv .venv\n")


# What there is, the words after `make demo`, what the one line says.
REFUSED = [
    ({"python3": "3.8.18"}, (), "python3 is Python 3.8.18"),
    ({"python3": "3.15.0"}, (), "python3 is Python 3.15.0"),
    ({"python3": "3.12.1", "mine": "3.10.1"}, ("PYTHON=mine",), "mine is Python 3.10.1"),
    ({}, (), "python3: not found"),
]


@pytest.mark.parametrize(("pythons", "words", "said"), REFUSED)
def test_other_pythons_are_refused_in_one_line(tmp_path, pythons, words, said):
    done = make(tmp_path, pythons, *words)
    ours = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2 and len(ours) == 1 and done.stdout == ""
    assert ours[0].startswith("error: Python 3.11 to 3.14 is needed, ") and said in ours[0]
