"""Imports that wait until they are used: half of the start-up was modules that nothing calls.

    with deferred_imports():
        import timm

OpenMMLab, timm and torchvision import plotting, scikit-learn, torch's compiler and clients for
downloads at import. Inside the block those modules are stand-ins, whose functions import the real
module when they are called; after it, importing such a module gives the real one.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce, wraps
from importlib.machinery import ModuleSpec
from types import ModuleType

NAMES = (
    "huggingface_hub",  # timm: downloads
    "matplotlib",  # mmdet: pictures of tracking errors
    "scipy",  # mmdet: assigners of DETR, Kalman filters of trackers
    "sklearn",  # mmdet: interpolation of tracks, one dense head
    "torch._dynamo",  # torchvision and timm: what may not be compiled
    "torch.distributed.fsdp",  # mmengine: sharded training
)


class _Later:
    """A function or class of a module that is imported when it is called."""

    def __init__(self, module: str, name: str):
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> "_Later":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(self._module, f"{self._name}.{name}")

    def __mro_entries__(self, bases: tuple) -> tuple:
        return ()  # a class built on a deferred one is of no use, but may be defined

    def __call__(self, *args, **kwargs):
        if isinstance(sys.modules.get(self._module), _StandIn):  # a decorator, inside the block
            return _decorated(self, *args, **kwargs)
        real = reduce(getattr, self._name.split("."), importlib.import_module(self._module))
        return real(*args, **kwargs)


def _decorated(decorator: _Later, *args, **kwargs):
    """Return the function that `decorator` makes of `args` once it is called."""

    def function(*call_args, **call_kwargs):
        return decorator(*args, **kwargs)(*call_args, **call_kwargs)

    return wraps(args[0])(function) if args and callable(args[0]) else function


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> _Later:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(self.__name__, name)


class _Finder:
    """Finds stand-ins for the modules called `names` and for all below them."""

    def __init__(self, names: tuple[str, ...]):
        self.names, self.made = names, []

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if any(f"{name}.".startswith(f"{deferred}.") for deferred in self.names):
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self.made.append(spec.name)
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def deferred_imports(names: tuple[str, ...] = NAMES) -> Iterator[None]:
    """Defer the imports of `names`, those aside that are imported already. Not for threads."""
    finder = _Finder(tuple(name for name in names if name not in sys.modules))
    sys.meta_path.insert(0, finder)
    collects = gc.isenabled()
    gc.disable()  # modules stay: looking for garbage among them took a tenth of the time
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        gc.freeze()
        if collects:
            gc.enable()
        for name in finder.made:
            stand_in = sys.modules.pop(name, None)
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and vars(sys.modules[parent]).get(child) is stand_in:
                delattr(sys.modules[parent], child)
