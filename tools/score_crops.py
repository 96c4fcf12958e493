"""Judge the crops in preprocess.py's folder, so that the label page shows likely anomalies first.

    python -m tools.score_crops crops --hand-model checkpoint/hand/ckpt29.pth
    python -m tools.label crops --page

Writes crops/p_abnormal.json. It is a separate command, so that crops can be judged on a machine
that has a GPU and labelled on another one.
"""

import argparse
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.flags import add_model_flags, given_models
from human_anomaly.configs.parts import PARTS
from human_anomaly.configs.places import tool
from human_anomaly.data.cropping.crop_lists import list_crops
from human_anomaly.data.cropping.label_page import PROBABILITIES_FILE, read_probabilities
from human_anomaly.data.dataset import read_image
from human_anomaly.data.stream import batched
from human_anomaly.models.classifier import input_of, load_classifier
from human_anomaly.models.device import choose_device
from human_anomaly.models.scoring.judge import CropJudge
from human_anomaly.utils import (
    UsageError,
    command_parser,
    cores_per_process,
    run_main,
    setup_logging,
    write_json,
)

logger = logging.getLogger(__name__)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    p = command_parser(__doc__, "tools.score_crops")
    add = p.add_argument
    add("folder", type=Path, metavar="DIR", help="preprocess.py's --output folder")
    add_model_flags(add)
    add("--cfg", metavar="FILE", help="YAML with the classifiers' shape")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="such as TEST.CHANNELS bgr")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--batch-size", type=int, default=64, help="crops read at once (64)")
    args = p.parse_args(argv)
    if args.batch_size < 1:
        p.error(f"--batch-size: expected at least 1, got {args.batch_size}")
    if not given_models(args):
        p.error(f"expected at least one of {', '.join(f'--{part}-model' for part in PARTS)}")
    return args


def score_files(judge: CropJudge, part: str, files: Sequence[Path], batch: int) -> list[float]:
    """Return each image's p(abnormal), or NaN and a warning where it cannot be read."""

    def read(file: Path) -> np.ndarray | None:
        try:
            return np.asarray(read_image(file, str(file.parent)))[:, :, ::-1]  # RGB to BGR
        except UsageError as error:
            logger.warning(error)
            return None

    found: list[float] = []
    with ThreadPoolExecutor(cores_per_process()) as pool:
        for chunk in batched(files, batch):
            images = list(pool.map(read, chunk))
            judged = iter(judge(part, [image for image in images if image is not None]))
            found += [float("nan") if image is None else next(judged) for image in images]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    setup_logging()
    config = get_config(args.cfg, args.opts)
    device = choose_device(args.device)
    probabilities = read_probabilities(args.folder)
    for part, model in given_models(args).items():
        places = list_crops(args.folder, part)
        if not places:
            raise UsageError(f"--{part}-model: no {part} crops in {args.folder}")
        files = [args.folder / part / place for place in places]
        judge = CropJudge(
            {part: load_classifier(model, config, device)},
            **input_of(config),
            device=device,
            threads=cores_per_process(),
        )
        scores = score_files(judge, part, files, args.batch_size)
        known = {f: p for f, p in probabilities.items() if not f.startswith(f"{part}/")}
        judged = zip(files, scores, strict=True)
        found = {f"{part}/{file.name}": round(p, 4) for file, p in judged if np.isfinite(p)}
        probabilities = known | found
        logger.info(f"{part}: {len(found):,} of {len(files):,} crops judged")
    path = args.folder / PROBABILITIES_FILE
    write_json(path, probabilities)
    logger.info(f"{path}: written; next: {tool('label')} {args.folder} --page")
    return 0


if __name__ == "__main__":
    run_main(main)
