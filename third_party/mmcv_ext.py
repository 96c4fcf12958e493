"""A stand-in for mmcv's compiled operations, which no wheel offers for a current torch.

At import OpenMMLab asks `mmcv._ext` for dozens of operations, of which this project runs one, NMS.
Call `install()` before mmdet or mmyolo is imported. A real compiled mmcv is left alone.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = "mmcv._ext"


def _nms(boxes, scores, iou_threshold: float, offset: int = 0):
    """Return the indices of the boxes to keep, best first; boxes (N, 4) xyxy, scores (N,)."""
    from torchvision.ops import nms

    if offset:
        raise NotImplementedError(f"{NAME}.nms: expected offset 0, got {offset}")
    return nms(boxes, scores, float(iou_threshold))


class _Operations(ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_args, **_kwargs):
            raise NotImplementedError(
                f"mmcv's compiled operation {name!r} is not built; install mmcv with its operations"
            )

        return missing


def install() -> bool:
    """Register the stand-in; return False where `mmcv._ext` exists already."""
    if NAME in sys.modules:
        return False
    if importlib.util.find_spec(NAME) is not None:
        return False
    module = _Operations(NAME)
    module.__spec__ = ModuleSpec(NAME, loader=None)
    module.nms = _nms
    sys.modules[NAME] = module
    return True
