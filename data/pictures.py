"""Picture files: one reader for what is scored, cropped and trained on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".apng", ".bmp", ".webp", ".tif", ".tiff"}
MAX_PIXELS = 2**26  # of a frame or a picture (8192 x 8192); larger ones would fill the memory
SEVERAL = {".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
ORIENTATION = 274  # the EXIF tag

# Pillow's readers raise these, and more kinds of ValueError, on broken files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class PictureError(Exception):
    """A picture that cannot be read; the message says why."""


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture's file; Pillow's errors, also those inside, become PictureErrors.

    Raises PictureError for more than MAX_PIXELS, too.
    """
    if not path.is_file():  # reading a pipe would never end
        raise PictureError("not a file" if path.exists() else "no such file")
    try:
        with Image.open(path) as image:
            _check_size(image)
            yield image
    except _BROKEN as error:
        raise PictureError(str(error)) from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise PictureError(f"{size} pixels, expected at most {MAX_PIXELS:,}")


def as_rgb(image: Image.Image) -> Image.Image:
    """Return the picture in 8-bit RGB, alpha dropped; of 16 bits, the upper 8 are kept.

    Raises PictureError for other depths.
    """
    # Pillow's own conversion of 16-bit grey makes all levels above 255 white.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise PictureError("32 bits a pixel, expected 8 or 16: nothing says which value is white")
    return image.convert("RGB")


def is_turned(image: Image.Image) -> bool:
    """Return whether EXIF says that the picture must be turned or mirrored to be upright."""
    return image.getexif().get(ORIENTATION, 1) not in (0, 1)


def count_pictures(path: Path) -> int:
    """Return how many pictures an animated PNG or WebP or a TIFF holds; 1 for other files."""
    if path.suffix.lower() not in SEVERAL:
        return 1
    try:
        with open_picture(path) as image:
            if image.format != SEVERAL[path.suffix.lower()]:
                return 1
            return image.n_frames - bool(image.info.get("default_image"))
    except PictureError:
        return 1


def read_pictures(path: Path, most: int) -> Iterator[tuple[np.ndarray, float | None]]:
    """Yield the first `most` pictures of a file as (H, W, 3) uint8 BGR, and the seconds each lasts.

    They come upright. Raises PictureError.
    """
    with open_picture(path) as image:
        first = int(bool(image.info.get("default_image")))  # for readers without APNG
        for number in range(first, first + most):
            if number:
                image.seek(number)
                _check_size(image)
            rgb = as_rgb(image)  # decodes it, and only then a WebP has a duration
            upright = ImageOps.exif_transpose(rgb) if is_turned(image) else rgb
            duration = image.info.get("duration")
            yield np.asarray(upright)[:, :, ::-1].copy(), duration / 1000 if duration else None
