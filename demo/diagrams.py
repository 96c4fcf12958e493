"""Draw the README's two diagrams into demo/pictures/: `python -m demo.diagrams`.

data_path.png shows the way of a frame to the scores, training.png that of videos to a checkpoint.
"""

import io
import itertools
from pathlib import Path

from configs.defaults import get_config, thresholds
from demo.paths import ROOT
from utils import atomic_write, run_main

WIDTH = 900  # the diagrams' unit: a pixel at the width at which they are read
SCALE = 2  # pixels of the file per unit
LINE = 17  # height of a line of text
INK, GREY, PANEL = "#1d2430", "#5b6472", "#f1f3f7"
COLOURS = {"human": "#3b6fd4", "face": "#b87a00", "hand": "#8e44c9"}  # as in the report
DATA, TOOL, RESULT, BY_HAND = "#ffffff", "#dce7fb", "#d8f1df", "#fdebd0"

Point = tuple[float, float]


class Canvas:
    """A drawing of boxes and arrows; x runs right and y down, in units."""

    def __init__(self, height: int):
        from matplotlib.figure import Figure  # without pyplot: no display, no global state

        inches = WIDTH / 100, height / 100
        self.figure = Figure(figsize=inches, dpi=100 * SCALE, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
        self.axes.axis("off")

    def text(self, x: float, y: float, words: str, size: float = 9, **style) -> None:
        style = {"color": INK, "ha": "center", "va": "baseline", "zorder": 4} | style
        # Named, so that the reader's own matplotlib settings change nothing.
        self.axes.text(x, y, words, fontsize=size, family="DejaVu Sans", **style)

    def panel(self, x: float, y: float, w: float, h: float, title: str, left: float = 14) -> None:
        """Draw the ground that the boxes of one stage share, its title `left` units from x."""
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x, y), w, h, fc=PANEL, ec="none", zorder=0))
        self.text(x + left, y + 22, title, 10, ha="left", weight="bold", color=GREY)

    def box(self, xywh: tuple[float, ...], text: str, fill: str = DATA, edge: str = GREY) -> None:
        """Draw a box with `text` in its middle, the first line bold."""
        from matplotlib.patches import FancyBboxPatch

        x, y, w, h = xywh
        style = "round,pad=0,rounding_size=6"
        self.axes.add_patch(FancyBboxPatch((x, y), w, h, style, fc=fill, ec=edge, lw=1.2, zorder=2))
        lines = text.split("\n")
        for i, line in enumerate(lines):
            below = y + h / 2 + LINE * (i - len(lines) / 2) + 12.5
            self.text(x + w / 2, below, line, 8.5 if i else 9, weight="normal" if i else "bold")

    def line(self, *points: Point) -> None:
        xs, ys = zip(*points, strict=True)
        self.axes.plot(xs, ys, color=INK, lw=1.2, solid_capstyle="round", zorder=1)

    def arrow(self, *points: Point) -> None:
        """Draw a line through `points` with a head at the last."""
        from matplotlib.patches import FancyArrowPatch

        if len(points) > 2:
            self.line(*points[:-1])
        style = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 0, "shrinkB": 0}
        self.axes.add_patch(FancyArrowPatch(*points[-2:], color=INK, lw=1.2, zorder=1, **style))

    def row(self, y: float, *ends: Point) -> None:
        """Draw an arrow from each box to the next one on its right; `ends` are (left, right)."""
        for (_, right), (left, _) in itertools.pairwise(ends):
            self.arrow((right, y), (left, y))

    def save(self, path: Path) -> None:
        from PIL import Image

        pixels = io.BytesIO()
        self.figure.savefig(pixels, format="png", dpi="figure")
        image = Image.open(pixels).convert("RGB").quantize(48, dither=Image.Dither.NONE)
        with atomic_write(path, "wb") as file:
            image.save(file, "PNG", optimize=True)


def draw_data_path() -> Canvas:
    """Return the way of a frame: found, judged, counted."""
    canvas = Canvas(510)
    _find(canvas)
    _judge(canvas)
    _count(canvas)
    # From the squares to the three classifiers, from their verdicts to the person.
    canvas.line((776, 150), (776, 196), (30, 196), (30, 450))
    canvas.line((602, 290), (628, 290), (628, 450), (602, 450))
    canvas.line((602, 370), (628, 370))
    canvas.arrow((628, 290), (664, 290))
    return canvas


def _find(canvas: Canvas) -> None:
    canvas.panel(10, 10, 880, 166, "1  Find")
    canvas.box((24, 86, 96, 52), "frame\nof the video")
    canvas.box((154, 86, 140, 52), 'YOLO-World\nfinds "human"', TOOL)
    canvas.box((328, 86, 130, 52), "crop\none per person")
    canvas.box((492, 86, 150, 52), 'YOLO-World\nfinds "face", "hand"', TOOL)
    canvas.box((676, 74, 200, 76), "square crops\none around each box of\na human, face or hand")
    canvas.row(112, (24, 120), (154, 294), (328, 458), (492, 642), (676, 876))
    canvas.arrow((224, 86), (224, 50), (776, 50), (776, 74))
    canvas.text(500, 43, "the box of the whole body", 8.5, color=GREY)


def _judge(canvas: Canvas) -> None:
    canvas.panel(10, 216, 606, 284, "2  Judge", left=42)
    canvas.box((174, 258, 126, 224), "resize\nshort side to 256,\ncentre 224 x 224", TOOL)
    for i, (part, limit) in enumerate(thresholds(get_config()).items()):
        y, edge = 290 + 80 * i, COLOURS[part]
        canvas.box((56, y - 30, 92, 60), f"{part}\nsquare", edge=edge)
        canvas.box((326, y - 30, 134, 60), f"ViT-B for {part}\ngives p(abnormal)", TOOL, edge)
        canvas.box((486, y - 30, 116, 60), f"p > {limit:g}\nflags the person", edge=edge)
        canvas.row(y, (0, 30), (56, 148), (174, 300), (326, 460), (486, 602))


def _count(canvas: Canvas) -> None:
    canvas.panel(644, 216, 246, 284, "3  Count", left=20)
    canvas.box((664, 254, 212, 72), "person\nabnormal if any part\nis above its threshold")
    canvas.box((664, 346, 212, 48), "frame score\nshare of normal people")
    canvas.box((664, 414, 212, 72), "video_results\nshare of normal people\nin all frames", RESULT)
    canvas.arrow((770, 326), (770, 346))
    canvas.arrow((770, 394), (770, 414))


def draw_training() -> Canvas:
    """Return the way of videos, or of the public data set, to a checkpoint."""
    canvas = Canvas(500)
    canvas.panel(10, 10, 880, 216, "1  Labelled crops")
    _own_data(canvas)
    _public_data(canvas)
    canvas.panel(10, 256, 880, 234, "2  One classifier per part")
    _finetune(canvas)
    canvas.arrow((788, 206), (788, 241), (375, 241), (375, 300))
    return canvas


def _own_data(canvas: Canvas) -> None:
    canvas.box((24, 46, 110, 70), "videos\nor images,\nyour own")
    canvas.box((166, 46, 150, 70), "preprocess.py\ncuts out humans,\nfaces and hands", TOOL)
    canvas.box((348, 46, 160, 70), "sorting by hand\nof crops into normal/\nand abnormal/", BY_HAND)
    canvas.box((540, 46, 130, 70), "data.label\nchecks the labels,\nwrites the lists", TOOL)
    canvas.row(81, (24, 134), (166, 316), (348, 508), (540, 670), (702, 874))


def _public_data(canvas: Canvas) -> None:
    canvas.box((24, 142, 292, 64), "public data set\nVBench-2.0_human_anomaly, with labels")
    canvas.box((348, 142, 322, 64), "data.vbench2\njoins and unpacks the archive, checks it", TOOL)
    canvas.box((702, 46, 174, 160), "JSONL and images\n{part}_train.jsonl,\n{part}_test.jsonl")
    canvas.row(174, (24, 316), (348, 670), (702, 876))


def _finetune(canvas: Canvas) -> None:
    canvas.box((24, 322, 160, 70), "SimMIM ViT-B\npre-trained weights,\n--pretrained")
    text = "main_finetune.py\none logit, BCE; RandAugment,\nmixup, cutmix; 30 epochs"
    canvas.box((240, 300, 270, 114), text, TOOL)
    canvas.box((240, 446, 270, 34), "last.pth")
    canvas.arrow((345, 414), (345, 446))
    canvas.arrow((405, 446), (405, 414))
    canvas.text(337, 434, "each epoch", 8.5, ha="right")
    canvas.text(413, 434, "run again: resume", 8.5, ha="left")
    canvas.box((566, 290, 140, 56), "ckpt29.pth\nthe classifier", RESULT)
    canvas.box((734, 290, 142, 56), "inference.py\nscores videos", TOOL)
    canvas.box((566, 360, 310, 50), "report/\nAUROC, curves, worst mistakes", RESULT)
    text = "labels.jpg, before the first step\nare the labels the right way round?"
    canvas.box((566, 424, 310, 50), text)
    canvas.row(357, (24, 184), (240, 510))
    canvas.line((510, 357), (538, 357))
    canvas.line((538, 318), (538, 449))
    for y in (318, 385, 449):
        canvas.arrow((538, y), (566, y))
    canvas.arrow((706, 318), (734, 318))


def main() -> int:
    folder = ROOT / "demo" / "pictures"
    draw_data_path().save(folder / "data_path.png")
    draw_training().save(folder / "training.png")
    return 0


if __name__ == "__main__":
    run_main(main)
