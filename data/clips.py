"""Clips in memory, in the formats that programs hold them; needs only numpy.

A clip is T frames, RGB: an array or a tensor on any device, (T, H, W, 3) or (T, 3, H, W), uint8 or
float in 0..1; or a list of PIL images.
"""

from collections.abc import Sequence

import numpy as np

LAYOUTS = ("THWC", "TCHW")


def is_tensor(value) -> bool:
    return hasattr(value, "detach")


def _is_image(value) -> bool:
    return hasattr(value, "convert")  # PIL's


def _kind(value) -> str:
    return str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")


def to_clips(clips, layout: str | None = None) -> tuple[list, bool]:
    """Return a list of clips (T, H, W, 3), and whether `clips` was one clip, not several.

    `clips` is a clip, an array of B clips with a leading axis, or a list. `layout` (THWC or TCHW)
    is needed where the shape fits both. `frames_of` checks the values. Raises ValueError for
    another shape or type.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout: expected {' or '.join(LAYOUTS)}, got {layout!r}")
    if isinstance(clips, (list, tuple)):
        alone = bool(clips) and _is_image(clips[0])
        return [_clip(clip, layout) for clip in ([clips] if alone else clips)], alone
    alone = getattr(clips, "ndim", 4) != 5
    return [_clip(clip, layout) for clip in ([clips] if alone else clips)], alone


def _clip(clip, layout: str | None):
    """Return one clip as (T, H, W, 3), without copying an array or a tensor."""
    if isinstance(clip, (list, tuple)) and clip and all(map(_is_image, clip)):
        sizes = {image.size for image in clip}
        if len(sizes) > 1:
            raise ValueError(f"the images of a clip must have one size, got {sorted(sizes)}")
        return np.stack([np.asarray(image.convert("RGB")) for image in clip])
    shape, kind = tuple(getattr(clip, "shape", ())), _kind(clip)
    if not (kind == "uint8" or kind.startswith(("float", "bfloat"))):
        how = "; for integers in 0..255 clip.astype('uint8'), or clip.to(torch.uint8)"
        raise ValueError(f"clip must be uint8 or float in 0..1, got {kind}{how}")
    if len(shape) != 4 or 0 in shape:
        how = "; a picture is picture[None], a list of frames np.stack(frames)"
        raise ValueError(f"clip must have shape (T, H, W, 3) or (T, 3, H, W), got {shape}{how}")
    fitting = [name for name in LAYOUTS if shape[name.index("C")] == 3]
    if layout is None and len(fitting) > 1:
        raise ValueError(f"clip has shape {shape}: say layout='THWC' or layout='TCHW'")
    chosen = layout or (fitting[0] if fitting else None)
    if chosen not in fitting:
        wanted = "(T, H, W, 3) or (T, 3, H, W)" if layout is None else layout + " with 3 channels"
        how = "; from (3, T, H, W): clip.swapaxes(0, 1); alpha: clip[..., :3]"
        raise ValueError(f"clip must be {wanted}, RGB, got shape {shape}{how}")
    if chosen == "TCHW":
        clip = clip.permute(0, 2, 3, 1) if is_tensor(clip) else clip.transpose(0, 2, 3, 1)
    return clip.detach() if is_tensor(clip) else clip


def frames_of(clip) -> Sequence:
    """Return a lazy sequence of the frames of a clip of `to_clips`, (H, W, 3) uint8 RGB.

    A float k / 255 becomes k, also in 16 bits. Raises ValueError for floats outside 0..1.
    """
    is_float = _kind(clip) != "uint8"
    if is_float:
        low, high = float(clip.min()), float(clip.max())
        if not (low >= 0 and high <= 1):  # NaN, too
            how = "(clip + 1) / 2 if it lies in -1..1, clip / 255 if in 0..255, or clip.clip(0, 1)"
            raise ValueError(f"floats must lie in 0..1, got {low:.6g} to {high:.6g}: {how}")
    return _Frames(clip, is_float)


class _Frames(Sequence):
    """The frames of a clip, each converted when it is asked for."""

    def __init__(self, clip, is_float: bool):
        self.clip, self.is_float = clip, is_float

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, index: int):
        frame = self.clip[index]
        if not self.is_float:
            return frame
        if is_tensor(frame):
            return (frame.float() * 255).round().byte()  # exact for bfloat16, too
        return np.rint(frame.astype(np.float32) * 255).astype(np.uint8)


def as_bytes(clip) -> np.ndarray:
    """Return a clip of `to_clips` as an array (T, H, W, 3) uint8."""
    frames = frames_of(clip)
    return np.stack([f.cpu().numpy() if is_tensor(f) else np.asarray(f) for f in frames])
