"""Where the project's files lie, where runs keep weights and caches, and which version it is."""

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import human_anomaly

ROOT = Path(__file__).resolve().parents[1]  # the clone, or the installed package's folder


def is_clone() -> bool:
    """Return whether the code runs from a clone, not from an installed package."""
    return (ROOT / "pyproject.toml").is_file()


def home() -> Path:
    """Return the folder of weights, data and caches.

    It is HUMAN_ANOMALY_HOME if that is set, else the clone, else ~/.cache/human_anomaly.
    """
    if named := os.environ.get("HUMAN_ANOMALY_HOME"):
        return Path(named).expanduser()
    return ROOT if is_clone() else Path("~/.cache/human_anomaly").expanduser()


def shipped(path: str) -> str:
    """Return `path`; if no such file is here, the one of that name of the project, if there is.

    So configs/demo/demo.yaml and fetched weights are found from any folder, also when installed.
    """
    places = (path, home() / path, ROOT / path)
    return next((str(place) for place in places if os.path.isfile(place)), path)


def module(name: str) -> str:
    """Return the words that start the module `name`, for the user: tools.label, demo.show, .."""
    return f"python -m {'' if is_clone() else 'human_anomaly.'}{name}"


def tool(name: str) -> str:
    """Return the words that start the command `name` of tools/, for hints to the user."""
    return module(f"tools.{name}")


def version() -> str:
    """Return the version, and the commit where it is known."""
    commit = None
    if (ROOT / ".git").exists():
        words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        try:
            commit = subprocess.run(words, capture_output=True, text=True).stdout.strip()
        except OSError:  # no git here
            commit = None
    elif not is_clone():  # pip notes the commit of `pip install git+URL`
        try:
            origin = metadata.distribution("human-anomaly").read_text("direct_url.json")
        except metadata.PackageNotFoundError:
            origin = None
        commit = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", "")[:7]
    return f"human-anomaly {human_anomaly.__version__}" + (f" ({commit})" if commit else "")
