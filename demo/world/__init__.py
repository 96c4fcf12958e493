"""The drawn world: short videos of articulated people whose anomalies are known exactly.

Coordinates are pixels, x to the right and y down; colours are BGR, 0 .. 255; boxes are xyxy.
"""

from .anomalies import KINDS
from .video import World, draw_still

__all__ = ["KINDS", "World", "draw_still"]
