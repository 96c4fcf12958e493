"""The drawn world: short videos of articulated people whose anomalies are known exactly."""

from .anomalies import KINDS
from .video import describe, draw_still, draw_video, iter_video

__all__ = ["KINDS", "describe", "draw_still", "draw_video", "iter_video"]
