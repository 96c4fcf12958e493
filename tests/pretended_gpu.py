"""A pretended GPU: tensors that claim cuda:0, compute on the CPU, and are counted.

As a script, in a process of its own because it replaces functions of torch:

    python pretended_gpu.py count VIDEO     scores it in fast mode; prints JSON: the rows, and what
                                            was counted outside the networks
    python pretended_gpu.py train FLAGS...  runs main_finetune.py
"""

import json
import sys
import threading
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NETWORKS = ("models/yolo_world/model.py", "models/yolo_world/neck.py", "models/classifier.py")
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "nms")
VIEWS = "view reshape permute transpose slice select squeeze expand alias detach unbind split chunk"
VIEWS = (*VIEWS.split(), "as_strided", "unfold", "lift_fresh", "sym_", "t.default")
MIXED = ("_to_copy", "copy_", "index", "index_put_", "_index_put_impl_")  # CPU and GPU may meet
counts: dict[str, Counter] = {"waits": Counter(), "copies": Counter(), "launches": Counter()}
lock = threading.Lock()


def count(kind: str, what: str) -> None:
    """Note one more of `kind`, by the line of this project that caused it."""
    frame, place = sys._getframe(2), "?"
    while frame is not None and place == "?":
        name = frame.f_code.co_filename
        if name.startswith(f"{ROOT}/") and ".venv" not in name and name != __file__:
            place = f"{name[len(str(ROOT)) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    with lock:
        counts[kind][f"{place} {what}"] += 1


class OnGPU(torch.Tensor):
    @staticmethod
    def __new__(cls, data):
        meta = torch.empty_strided(data.size(), data.stride(), dtype=data.dtype, device="meta")
        tensor = torch.Tensor._make_subclass(cls, meta, False, device_for_backend_keys=GPU)
        tensor.data_ = data
        return tensor

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def numpy(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def new_tensor(self, data, dtype=None, **_):
        return torch.tensor(data, dtype=dtype or self.dtype, device=GPU)

    def tolist(self):
        count("waits", "tolist")
        return self.data_.tolist()

    def __deepcopy__(self, memo):
        return OnGPU(self.data_.clone())

    def __reduce_ex__(self, protocol):  # files hold plain tensors
        return self.data_.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def dispatch(func, args, kwargs):
    """Run an operation on the CPU, count it, and return tensors on the right device."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with Counting():
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
    name = func._schema.name.split("::")[1]
    flat, _ = tree_flatten((args, kwargs))
    ours = [x for x in flat if isinstance(x, OnGPU)]
    others = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, OnGPU)]
    if ours and name not in MIXED and any(x.dim() for x in others):
        raise RuntimeError(f"Expected all tensors to be on the same device, in {name}")
    where = kwargs.get("device")
    where = None if where is None else torch.device(where).type
    on_gpu = bool(ours) if where is None else where in ("cuda", "meta")
    if name == "_to_copy" and (where is not None) and on_gpu != bool(ours):
        count("copies", "to cuda" if on_gpu else "to cpu")
        if not on_gpu or not kwargs.get("non_blocking"):
            count("waits", "blocking copy")
    if name == "copy_" and isinstance(args[0], OnGPU) != isinstance(args[1], OnGPU):
        count("copies", "copy_")
        count("waits", "copy_")
        on_gpu = isinstance(args[0], OnGPU)
    if name.startswith("index") and any(x.dtype in (torch.bool, torch.uint8) for x in ours[1:]):
        count("waits", "mask")
    if ours and name in WAITS:
        count("waits", name)
    if on_gpu and not any(view in str(func) for view in VIEWS):
        count("launches", name)
    return compute(func, args, kwargs, flat, on_gpu)


def compute(func, args, kwargs, flat, on_gpu: bool):
    def plain(x):
        if isinstance(x, torch.device):
            return CPU
        return x.data_ if isinstance(x, OnGPU) else x

    args, kwargs = tree_map(plain, (args, kwargs))
    kwargs |= {
        key: value for key, value in (("device", CPU), ("pin_memory", False)) if key in kwargs
    }
    with _disable_current_modes():
        result = func(*args, **kwargs)
    known = {id(plain(x)): x for x in flat if isinstance(x, torch.Tensor)}

    def wrap(x):
        if not isinstance(x, torch.Tensor) or isinstance(x, OnGPU):
            return x
        return known.get(id(x)) if id(x) in known else OnGPU(x) if on_gpu else x

    return tree_map(wrap, result)


class Counting(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        flat, _ = tree_flatten((args, kwargs))
        where = [torch.device(x).type for x in (kwargs.get("device"),) if x is not None]
        where += [x.type for x in flat if isinstance(x, torch.device)]
        if "cuda" in where or any(isinstance(x, OnGPU) for x in flat):
            return dispatch(func, args, kwargs)
        return func(*args, **kwargs)


def install() -> None:
    """Let torch believe in one GPU, in all threads."""
    from timm.layers import set_fused_attn

    set_fused_attn(False)
    tensor, run = torch.tensor, threading.Thread.run

    def new_tensor(data, *, dtype=None, device=None, **options):
        made = tensor(data, dtype=dtype, **options)
        return made if device is None else made.to(device)

    def run_counting(self) -> None:
        with Counting():
            run(self)

    torch.tensor, threading.Thread.run = new_tensor, run_counting
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else torch.enable_grad()
    optimizer = torch.optim.Optimizer
    optimizer._accelerator_graph_capture_health_check = lambda self: None
    optimizer._cuda_graph_capture_health_check = lambda self: None
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    for name, value in {
        **{"is_available": True, "device_count": 1, "current_device": 0, "_lazy_init": None},
        **{"is_initialized": True, "is_bf16_supported": True, "max_memory_allocated": 0},
        **{"set_device": None, "manual_seed_all": None, "get_device_capability": (9, 0)},
        **{"is_current_stream_capturing": False, "get_device_name": "pretended"},
    }.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    torch.cuda.get_rng_state = lambda *_: torch.get_rng_state()
    torch.cuda.set_rng_state = lambda *_: None
    for place in (torch.cuda, torch.accelerator):
        place.synchronize = lambda *_: count("waits", "synchronize")
    Counting().__enter__()


def score(video: str) -> dict:
    """Return the rows and the counts of scoring `video` a second time."""
    from human_anomaly.configs.defaults import PARTS, get_config
    from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, WEIGHTS
    from human_anomaly.models.scoring import scorer

    scorer.fast_dtype = lambda _: torch.float32  # the type changes no count
    models = {part: WEIGHTS / f"{part}.pth" for part in PARTS}
    files = DETECTOR_CONFIG, WEIGHTS / "detector.pth"
    settings = {"device": "cuda", "fast": True, "stride": 5}
    made = scorer.VideoScorer.from_files(*files, models, get_config(CONFIG), **settings)
    made.score(video)  # what is copied once per device
    for counter in counts.values():
        counter.clear()
    rows = made.score(video).frames
    found = {"frames": len(rows), "rows": rows}
    for kind, counter in counts.items():
        outside = {k: n for k, n in counter.items() if not k.startswith(NETWORKS)}
        found[kind] = sum(outside.values())
        found[f"{kind} by line"] = outside
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    install()
    if sys.argv[1] == "count":
        print(json.dumps(score(sys.argv[2])))
    else:
        from human_anomaly import main_finetune

        status = main_finetune.main(sys.argv[2:])
        print(json.dumps({kind: dict(counter) for kind, counter in counts.items()}))
        sys.exit(status)
