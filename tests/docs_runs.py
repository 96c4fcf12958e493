"""What the pages' commands say: blocks of a page, and the words of each command in them."""

import contextlib
import io
import os
import re
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

from conftest import ROOT

PROGRAMS = ("python", "torchrun", "make", "pip", "curl", "gdown", "vbench2", "srun")
CONSOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in this language ("" for commands)."""
    text = re.sub(r"(?m)^  ", "", page.read_text(encoding="utf-8"))  # blocks in lists
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for mark, block in found if mark == language]


def commands(script: str, folder: Path, env: dict | None = None) -> list[list[str]]:
    """Run a script in bash, with programs that only write down their words; return those."""
    folder.mkdir(exist_ok=True)
    for name in (*PROGRAMS, *CONSOLE):
        words = '"$@"' if name == "srun" else f'{name} "$@"'
        stub = folder / name
        stub.write_text(f'#!/bin/sh\nprintf "%s\\n" {words} end >> "{folder}/words"\n')
        stub.chmod(0o755)
    (folder / "scontrol").write_text("#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
    (folder / "scontrol").chmod(0o755)
    (folder / "words").write_text("")
    env = {**(env or {}), "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-eu", "-c", script.replace(". .venv/bin/activate", "true")],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), script
    return [c.split("\n") for c in (folder / "words").read_text().split("\nend\n")[:-1]]


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """Return which module of ours a command runs, and its arguments."""
    if words[0] in CONSOLE:
        name = CONSOLE[words[0]].split(":")[1]
        from human_anomaly.tools import console

        run = getattr(console, name)
        module = dict(zip(run.__code__.co_freevars, run.__closure__, strict=True))["module"]
        return module.cell_contents, words[1:]
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        launch = get_args_parser().parse_args(words[1:])
        words = ["python", launch.training_script, *launch.training_script_args]
    if words[1] == "-m":
        return words[2], words[3:]
    return Path(words[1]).stem, words[2:]


def main_of(module: str):
    package = ROOT / module.replace(".", "/")
    return import_module(
        f"human_anomaly.{module}" + (".__main__" if (package / "__main__.py").is_file() else "")
    ).main


def help_of(module: str, monkeypatch) -> str:
    """Return what a command prints for --help."""
    monkeypatch.setattr("sys.argv", [module, "--help"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main_of(module)()
    return printed.getvalue()
