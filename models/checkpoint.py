"""Reading checkpoints without running any code that is in them.

Files from others hold configuration objects beside their tensors. torch's restricted unpickler
reads them, with a short allow-list that maps those objects to stand-ins that do nothing.

Mapping tensors from disk verifies no checksum. So a file's checksums and numbers are checked once,
and `~/.cache/human_anomaly/checked_weights.json` remembers which files were good.
"""

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from human_anomaly.data.runs.marks import file_stamp, read_object
from human_anomaly.utils import UsageError, write_json

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

State = dict[str, torch.Tensor]


class CheckpointError(UsageError):
    """A weight file that cannot be used; the message says what was expected and what was found."""


class _Inert:
    """Stands in for a foreign object: takes any arguments and does nothing."""

    def __init__(self, *args, **kwargs):
        pass


def _inert_call(*args):
    """Stand in for a foreign function, such as getattr: it is not called, the result is None."""
    return None


def _allowed() -> list:
    """Return the allow-list: plain data, and stand-ins for foreign names."""
    multiarray = np._core.multiarray
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdOSU"}
    return [
        (OrderedDict, "yacs.config.CfgNode"),
        (OrderedDict, "mmengine.config.config.ConfigDict"),
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

    Raises CheckpointError for a file that is missing, damaged or no checkpoint, that names code
    outside the allow-list, or whose weights are no plain, finite numbers.
    """
    path = Path(path)
    is_zip = _is_zip(path)
    stamp = file_stamp(os.path.abspath(path))
    is_known = stamp in _good_stamps()
    try:
        if is_zip and not is_known:
            _check_archive(path)
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        reason = next(
            (x for x in str(error).splitlines() if "nsupported" in x or "GLOBAL" in x), ""
        )
        raise CheckpointError(
            f"{path}: refused, it holds more than tensors and plain data "
            f"({reason.strip()[:200] or 'unreadable'}); nothing in it was run"
        ) from error
    except Exception as error:  # damaged bytes can lead an unpickler into any error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{path}: damaged or truncated checkpoint, {_size(path)} ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict, found {type(content).__name__}")
    if not is_known:
        _check_numbers(content, path)
        _remember(stamp)
    return content


def _is_zip(path: Path) -> bool:
    """Return True for an archive, False for a pickle; raises CheckpointError for anything else."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty (0 bytes); expected a checkpoint")
    is_zip = head.startswith(b"PK")
    if is_zip and not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: truncated, {_size(path)} found and the archive's end is missing "
            "(a released anomaly detector has 346.8 MB); fetch it again"
        )
    if not is_zip and not head.startswith(b"\x80"):
        is_page = head.lstrip()[:1] == b"<"
        kind = "a web page" if is_page else f"a file that starts with {head[:8]!r}"
        raise CheckpointError(f"{path}: expected a PyTorch checkpoint, found {kind}, {_size(path)}")
    return is_zip


def _memory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "human_anomaly" / "checked_weights.json"


def _good_stamps() -> list:
    with suppress(RuntimeError):  # no home: nothing is remembered
        stamps = (read_object(_memory()) or {}).get("good")
        return stamps if isinstance(stamps, list) else []
    return []


def _remember(stamp: list) -> None:
    """Note that the file is good, if the cache can be written; forget files that have changed."""
    with suppress(OSError, RuntimeError, TypeError, LookupError):
        good = [other for other in _good_stamps() if other == file_stamp(other[0])]
        _memory().parent.mkdir(parents=True, exist_ok=True)
        write_json(_memory(), {"good": [*good, stamp]})


def _check_archive(path: Path) -> None:
    """Raise CheckpointError where a checksum is wrong or a record is compressed."""
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{path}: expected plain records, {record.filename} is compressed"
                )
        if wrong := archive.testzip():
            raise CheckpointError(
                f"{path}: damaged, the checksum of {wrong} is wrong; fetch it again"
            )


def _tensors(content: Mapping) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the named tensors of a checkpoint: its own, and those of the state dicts in it."""
    for name, value in content.items():
        inner = value.items() if isinstance(value, Mapping) else [(name, value)]
        yield from ((str(k), v) for k, v in inner if isinstance(v, torch.Tensor))


def _check_numbers(content: Mapping, path: Path) -> None:
    """Raise CheckpointError, which names the first tensor that is not plain, finite numbers."""
    for name, tensor in _tensors(content):
        if (problem := _oddity(tensor)) is not None:
            raise CheckpointError(f"{path}: {name}: expected a plain tensor, found {problem}")
        if tensor.dtype in FLOATS and tensor.numel():
            low, high = tensor.aminmax()
            if not (low.isfinite() and high.isfinite()):
                raise CheckpointError(f"{path}: {name} holds NaN or infinity: the file is useless")


def _oddity(tensor: torch.Tensor) -> str | None:
    """Return why a tensor is not plain numbers in memory, or None."""
    is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not is_plain or tensor.is_quantized or tensor.is_nested:
        return f"one of kind {tensor.layout}, {tensor.dtype} on {tensor.device}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"{tuple(tensor.shape)} with fewer numbers than that in the file"
    return None


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
    if odd := next((k for k in state if not isinstance(k, str)), None):
        raise CheckpointError(f"{path}: expected names of weights, found {str(odd)[:80]!r}")
    if not state:
        expected = " or ".join(f"'{key}'" for key in keys)
        found = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise CheckpointError(f"{path}: expected weights under {expected}, found: {found}")
    return {k.removeprefix("module."): v for k, v in state.items()}


def compare(state: Mapping[str, torch.Tensor], expected: Mapping, path: str | Path) -> None:
    """Raise CheckpointError where names, shapes or kinds differ; the message has the first ones.

    Where floating point is expected, the tensor must be of floating point too.
    """
    missing = [k for k in expected if k not in state]
    extra = [k for k in state if k not in expected]
    both = [k for k in expected if k in state]
    wrong = [k for k in both if state[k].shape != expected[k].shape]
    other = [k for k in both if expected[k].is_floating_point() and state[k].dtype not in FLOATS]
    found = []
    if missing:
        found.append(f"{len(missing)} missing (first: {', '.join(missing[:3])})")
    if extra:
        found.append(f"{len(extra)} unexpected (first: {', '.join(extra[:3])})")
    for k in wrong[:1]:
        shapes = f"{k} is {tuple(state[k].shape)}, expected {tuple(expected[k].shape)}"
        found.append(f"{len(wrong)} of another shape (first: {shapes})")
    for k in other[:1]:
        kinds = f"{k} is {state[k].dtype}, expected {expected[k].dtype}"
        found.append(f"{len(other)} of another type (first: {kinds})")
    if found:
        saved = own_settings(path)
        hint = f"; the settings it was trained with: --cfg {saved}" if saved else ""
        raise CheckpointError(
            f"{path}: other architecture than the settings describe: {'; '.join(found)}{hint}"
        )


def own_settings(path: str | Path) -> Path | None:
    """Return the YAML that main_finetune.py wrote beside a checkpoint, if there is one."""
    saved = Path(path).with_name("config.yaml")
    return saved if saved.is_file() else None


def assign_state(module: torch.nn.Module, state: State, path: str | Path) -> None:
    """Replace `module`'s weights by the tensors of `state`, in float32.

    Memory-mapped tensors stay mapped, so the weights are not copied into memory. Raises
    CheckpointError where names, shapes or kinds differ; `path` names the file in the message.
    """
    compare(state, module.state_dict(), path)
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    module.load_state_dict(state, strict=True, assign=True)
