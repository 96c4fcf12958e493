"""Small videos, whole and damaged."""

import random
from pathlib import Path

import av
import numpy as np


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return `data` cut, overwritten, repeated, with bits flipped, or replaced."""
    data, at = bytearray(data), rng.randrange(len(data))
    match rng.randrange(7):
        case 0:
            return bytes(data[:at])
        case 1:
            for _ in range(rng.choice((1, 10, 1000))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:
            data[at : at + 64] = rng.randbytes(64)
        case 3:
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
        case 4:
            data[at:at] = data[: rng.randrange(len(data))]
        case 5:
            del data[at : at + rng.randrange(1, 4096)]
        case 6:
            data[: rng.choice((4, 64, 1024))] = b"" if rng.random() < 0.5 else bytes(64)
    return bytes(data)


def damage_packets(path: Path, rng: random.Random) -> bytes:
    """Return a video's content damaged in its picture's data only: cut, bits flipped, spliced."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos]
    at, size = rng.choice(packets)
    end = min(at + size, len(data))
    match rng.randrange(4):
        case 0:
            return bytes(data[: rng.randrange(at, end)])
        case 1:
            for _ in range(rng.choice((1, 10, 100))):
                data[rng.randrange(at, end)] ^= 1 << rng.randrange(8)
        case 2:  # a piece of another packet
            other, length = rng.choice(packets)
            piece = data[other : other + rng.randrange(1, length + 1)][: end - at]
            data[at : at + len(piece)] = piece
        case 3:  # of a length that shifts all that follows
            del data[rng.randrange(at, end) : end]
    return bytes(data)


def write_clip(path: Path, frames: int = 12, codec: str = "") -> Path:
    """Write a small video; its codec goes with the container unless it is named."""
    codec = codec or {".mp4": "mpeg4", ".webm": "libvpx", ".avi": "mjpeg"}[path.suffix]
    options = {"movflags": "faststart"} if path.suffix == ".mp4" and codec == "libx264" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(frames):
            image = np.random.default_rng(i).integers(0, 255, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "bgr24")))
        container.mux(stream.encode())
    return path


def damaged_clip(folder: Path, rng: random.Random, stem: str = "a") -> Path:
    """Write a damaged video of one of three containers; every other one in its packets only."""
    path = folder / f"{stem}{rng.choice(('.mp4', '.webm', '.avi'))}"
    if rng.random() < 0.5:
        write_clip(path).write_bytes(damage(path.read_bytes(), rng))
    else:
        codecs = {".mp4": ("mpeg4", "libx264"), ".webm": ("libvpx", "libvpx-vp9")}
        write_clip(path, codec=rng.choice(codecs.get(path.suffix, ("mjpeg", "mpeg4"))))
        path.write_bytes(damage_packets(path, rng))
    return path
