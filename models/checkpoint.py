"""Reading checkpoints without running any code that is in them.

Files from others hold configuration objects beside their tensors. torch's restricted unpickler
reads them, with a short allow-list that maps those objects to stand-ins that do nothing.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from utils import UsageError

State = dict[str, torch.Tensor]


class CheckpointError(UsageError):
    """A weight file that cannot be used; the message names it, what was expected, what came."""


class _Inert:
    """Stands in for a foreign object: takes any arguments and does nothing."""

    def __init__(self, *args, **kwargs):
        pass


class _PlainDict(dict):
    """Stands in for a foreign mapping."""


def _inert_call(*args):
    """Stand in for a foreign function, such as getattr: it is not called, the result is None."""
    return None


def _allowed() -> list:
    """Return what a file may name: plain data, and foreign names with their stand-ins."""
    multiarray = np._core.multiarray
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdOSU"}
    return [
        (OrderedDict, "yacs.config.CfgNode"),
        (_PlainDict, "mmengine.config.config.ConfigDict"),
        (_Inert, "mmengine.config.config.Config"),
        (_Inert, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_inert_call, "builtins.getattr"),
        (_Inert, "argparse.Namespace"),
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.scalar, "numpy._core.multiarray.scalar"),
        np.ndarray,
        np.dtype,
        *dtypes,
    ]


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def read_checkpoint(path: str | Path) -> dict:
    """Return the dict saved at `path`, tensors memory-mapped on the CPU where the format allows.

    Raises CheckpointError for a file that is missing, truncated, not a checkpoint, or that names
    code outside the allow-list.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise CheckpointError(f"{path}: the file is empty (0 bytes); expected a checkpoint")
    is_zip = head.startswith(b"PK")
    if is_zip and not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: truncated, {_size(path)} found and the archive's end is missing "
            "(a released anomaly detector has 346.8 MB); fetch it again"
        )
    if not is_zip and not head.startswith(b"\x80"):
        kind = (
            "a web page" if head.lstrip()[:1] == b"<" else f"a file that starts with {head[:8]!r}"
        )
        raise CheckpointError(f"{path}: expected a PyTorch checkpoint, found {kind}, {_size(path)}")
    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        reason = next(
            (x for x in str(error).splitlines() if "nsupported" in x or "GLOBAL" in x), ""
        )
        raise CheckpointError(
            f"{path}: refused, it holds more than tensors and plain data "
            f"({reason.strip()[:200] or 'unreadable'}); nothing in it was run"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged or truncated checkpoint, {_size(path)} ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict, found {type(content).__name__}")
    return content


def pick_state(content: dict, keys: tuple[str, ...], path: str | Path) -> State:
    """Return the tensors stored under the first of `keys` that `content` has, by name.

    A file without these keys may itself be a state dict. Raises CheckpointError, which names
    `path`, where there are no tensors.
    """
    for key in keys:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not state:
        expected = " or ".join(f"'{key}'" for key in keys)
        found = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise CheckpointError(f"{path}: expected weights under {expected}, found: {found}")
    return {k.removeprefix("module."): v for k, v in state.items()}


def compare(state: Mapping[str, torch.Tensor], expected: Mapping, path: str | Path) -> None:
    """Raise CheckpointError where names or shapes differ; the message tells the first ones."""
    missing = [k for k in expected if k not in state]
    extra = [k for k in state if k not in expected]
    wrong = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    if not (missing or extra or wrong):
        return
    found = []
    if missing:
        found.append(f"{len(missing)} missing (first: {', '.join(missing[:3])})")
    if extra:
        found.append(f"{len(extra)} unexpected (first: {', '.join(extra[:3])})")
    if wrong:
        k = wrong[0]
        shapes = f"{k} is {tuple(state[k].shape)}, expected {tuple(expected[k].shape)}"
        found.append(f"{len(wrong)} of another shape (first: {shapes})")
    raise CheckpointError(
        f"{path}: other architecture than the settings describe: " + "; ".join(found)
    )


def assign_state(module: torch.nn.Module, state: State, path: str | Path) -> None:
    """Replace `module`'s weights by the tensors of `state`, in float32.

    Memory-mapped tensors stay mapped, so the weights are not copied into memory. Raises
    CheckpointError where names or shapes differ; `path` names the file in the message.
    """
    compare(state, module.state_dict(), path)
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    module.load_state_dict(state, strict=True, assign=True)
