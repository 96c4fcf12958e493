"""Every kind of file is read, none is run, and each bad one gets one clear line."""

import collections
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from human_anomaly.models.checkpoint import (
    CheckpointError,
    assign_state,
    compare,
    pick_state,
    read_checkpoint,
)

WEIGHT = {"head.weight": torch.arange(6.0).view(2, 3)}


def test_our_own_file(tmp_path):
    torch.save({"model": WEIGHT, "epoch": 3, "config": "SEED: 0"}, tmp_path / "ckpt3.pth")
    content = read_checkpoint(tmp_path / "ckpt3.pth")
    assert content["epoch"] == 3
    assert torch.equal(pick_state(content, ("model",), "x")["head.weight"], WEIGHT["head.weight"])


def test_old_format_file(tmp_path):
    torch.save({"model": WEIGHT}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "a.pth")["model"]["head.weight"].shape == (2, 3)


def test_released_file_with_a_yacs_node(tmp_path):
    from yacs.config import CfgNode

    node = CfgNode({"TRAIN": CfgNode({"EPOCHS": 30})})
    torch.save({"model": WEIGHT, "config": node}, tmp_path / "a.pth")
    content = read_checkpoint(tmp_path / "a.pth")
    assert not isinstance(content["config"], CfgNode)
    assert torch.equal(content["model"]["head.weight"], WEIGHT["head.weight"])


def test_official_file_with_mmengine_objects(tmp_path):
    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer

    history = HistoryBuffer()
    history.update(0.5)
    meta = {"cfg": ConfigDict(a=ConfigDict(b=1)), "seed": np.int64(3), "time": "2024"}
    content = {"meta": meta, "state_dict": WEIGHT, "message_hub": {"loss": history}}
    torch.save(content, tmp_path / "yolo.pth")
    with pytest.raises(pickle.UnpicklingError):  # without the allow-list it is refused
        torch.load(tmp_path / "yolo.pth", weights_only=True)
    read = read_checkpoint(tmp_path / "yolo.pth")
    assert not isinstance(read["message_hub"]["loss"], HistoryBuffer)
    assert pick_state(read, ("state_dict",), "x").keys() == WEIGHT.keys()


def test_data_parallel_prefix_is_dropped():
    state = pick_state({"model": {"module.head.weight": torch.zeros(1)}}, ("model",), "x")
    assert list(state) == ["head.weight"]


class _Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, new_format):
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    content = {"model": WEIGHT, "x": _Attack(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"evil\.pth: refused.*nothing in it was run"):
        read_checkpoint(path)
    assert not marker.exists()


def test_getattr_in_a_file_is_inert(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, ("text", "upper")

    torch.save({"model": WEIGHT, "x": Reach()}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth")["x"] is None


def _whole(path):
    torch.save({"model": {"w": torch.zeros(1000)}}, path)
    return path.read_bytes()


BAD_FILES = [
    (None, "no such weight file"),
    (lambda whole: b"", r"empty \(0 bytes\)"),
    (lambda whole: whole[: len(whole) // 2], "truncated, 0.0 MB found"),
    (lambda whole: b"<!DOCTYPE html><html>quota</html>", "found a web page"),
    (lambda whole: b"\x00" * 100, "expected a PyTorch checkpoint"),
    (lambda whole: b"\x80\x02garbage", "damaged or truncated|refused"),
    (lambda whole: pickle.dumps([1, 2]), "damaged|expected a dict|refused"),
]


@pytest.mark.parametrize(("make", "message"), BAD_FILES)
def test_bad_files_get_one_line(tmp_path, make, message):
    path = tmp_path / "bad.pth"
    whole = _whole(path)
    path.unlink()
    if make is not None:
        path.write_bytes(make(whole))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_layout_names_what_was_found():
    with pytest.raises(CheckpointError, match="under 'model', found: epoch, note"):
        pick_state({"epoch": 1, "note": "x"}, ("model",), "a.pth")


def test_compare_names_first_differences():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    state = {"a": torch.zeros(5), "b": torch.zeros(3), "d": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        compare(state, expected, "x.pth")
    message = str(caught.value)
    for words in ("x.pth", "first: c", "first: d", "a is (5,), expected (2,)"):
        assert words in message
    compare(expected, expected, "x.pth")


def test_ordered_dicts_are_plain(tmp_path):
    torch.save({"model": collections.OrderedDict(WEIGHT)}, tmp_path / "a.pth")
    assert "model" in read_checkpoint(tmp_path / "a.pth")


class _WithBuffers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)
        self.register_buffer("steps", torch.arange(3.0).mul_(2), persistent=False)


def test_weights_are_assigned_in_float32_and_buffers_are_computed(tmp_path):
    weight, bias = torch.ones(3, 2), torch.zeros(3, dtype=torch.half)
    torch.save({"model": {"linear.weight": weight, "linear.bias": bias}}, tmp_path / "a.pth")
    state = pick_state(read_checkpoint(tmp_path / "a.pth"), ("model",), "x")
    module = _WithBuffers()
    assign_state(module, state, "x")
    assert module.linear.weight.data_ptr() == state["linear.weight"].data_ptr()  # still mapped
    assert torch.equal(module.linear.weight, weight)
    assert module.linear.bias.dtype == torch.float32 and module.linear.bias.tolist() == [0, 0, 0]
    assert module.steps.tolist() == [0, 2, 4]


def test_other_weights_are_not_assigned():
    module = _WithBuffers()
    before = module.linear.weight.clone()
    with pytest.raises(CheckpointError, match=r"^x\.pth: other .*first: linear\.bias"):
        assign_state(module, {"linear.weight": torch.ones(3, 2)}, "x.pth")
    assert torch.equal(module.linear.weight, before)


def _load(path, expected):
    compare(pick_state(read_checkpoint(path), ("model",), path), expected, path)


W = torch.ones(2, 3)
ODD_WEIGHTS = [
    (torch.full((2, 3), torch.nan), "w holds NaN or infinity"),
    (torch.tensor([[1, 2, torch.inf]] * 2), "w holds NaN or infinity"),
    (W.int(), "1 of another type .first: w is torch.int32, expected torch.float32"),
    (W.bool(), "1 of another type"),
    (W.to("meta"), "w: expected a plain tensor, found .* on meta"),
    (W.to_sparse(), "w: expected a plain tensor, found .*sparse"),
    (torch.ones(1).expand(2, 3), "w: expected a plain tensor, found .* fewer numbers"),
    (torch.ones(1).expand(2**40), "w: expected a plain tensor, found .* fewer numbers"),
]


@pytest.mark.parametrize(("tensor", "message"), ODD_WEIGHTS)
def test_what_is_no_plain_float_tensor_is_refused(tmp_path, tensor, message):
    torch.save({"model": {"w": tensor}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"a\.pth: .*{message}"):
        _load(tmp_path / "a.pth", {"w": W})


def test_names_of_weights_are_text(tmp_path):
    torch.save({"model": {7: W}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: expected names of weights, found '7'"):
        _load(tmp_path / "a.pth", {"w": W})


def test_a_huge_array_is_one_line(tmp_path):
    class Huge:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (2**45,), "d")

    torch.save({"model": {"w": W}, "x": Huge()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth: (damaged|refused)"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_flipped_bit_is_found_once_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "a.pth"
    torch.save({"model": {"w": torch.ones(1000)}}, path)
    read_checkpoint(path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(torch.ones(4).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"a\.pth: damaged, the checksum of .* is wrong"):
        read_checkpoint(path)


def test_a_good_file_is_checked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, checked = tmp_path / "a.pth", []
    monkeypatch.setattr("human_anomaly.models.checkpoint._check_archive", checked.append)
    for weights in (torch.ones(3), torch.ones(3), torch.zeros(3)):
        if not path.exists() or not weights.any():
            torch.save({"model": {"w": weights}}, path)
        read_checkpoint(path)
    assert len(checked) == 2  # the second file is another one


def test_packed_records_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": {"w": torch.zeros(1000)}}, path)
    with zipfile.ZipFile(path) as old:
        records = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in records:
            packed.writestr(name, content)
    with pytest.raises(CheckpointError, match=r"a\.pth: expected plain records, .* is compressed"):
        read_checkpoint(path)
