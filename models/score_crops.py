"""Judge the crops in preprocess.py's folder, so that the label page shows likely anomalies first.

    python -m models.score_crops crops --hand-model checkpoint/hand/ckpt29.pth
    python -m data.label crops --page

Writes crops/p_abnormal.json. It is a command of its own because data/ knows no networks: crops can
be judged where a GPU is, and labelled anywhere.
"""

import argparse
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from configs.defaults import PARTS, ConfigError, get_config
from data.cropping.crop_lists import list_crops
from data.cropping.label_page import PROBABILITIES_FILE, read_probabilities
from data.dataset import read_image
from data.stream import batched
from data.transforms import build_eval_transform, normalize
from models.classifier import load_classifier
from models.device import choose_device
from utils import UsageError, cores_per_process, run_main, setup_logging, write_json

logger = logging.getLogger(__name__)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    first, _, rest = __doc__.partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m models.score_crops",
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("folder", type=Path, metavar="DIR", help="preprocess.py's --output folder")
    add("--human-model", "--human_model", metavar="FILE", help="checkpoint that judges bodies")
    add("--face-model", "--face_model", metavar="FILE", help="checkpoint that judges faces")
    add("--hand-model", "--hand_model", metavar="FILE", help="checkpoint that judges hands")
    add("--cfg", metavar="FILE", help="YAML with the classifiers' shape")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="such as TEST.CHANNELS bgr")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--batch-size", type=int, default=64, help="crops per batch (64)")
    args = p.parse_args(argv)
    if args.batch_size < 1:
        p.error(f"--batch-size: expected at least 1, got {args.batch_size}")
    if not (args.human_model or args.face_model or args.hand_model):
        p.error("expected at least one of --human-model, --face-model, --hand-model")
    return args


def score_files(classifier, files: Sequence[Path], config, device, batch_size: int) -> list[float]:
    """Return each image's p(abnormal); NaN, and a warning, where it cannot be read."""
    transform = build_eval_transform(
        size=config.DATA.IMG_SIZE,
        crop=config.TEST.CROP,
        interpolation=config.DATA.INTERPOLATION,
    )

    def pixels(file: Path) -> np.ndarray | None:
        try:
            image = read_image(file, str(file.parent))
        except UsageError as error:
            logger.warning(error)
            return None
        if config.TEST.CHANNELS == "bgr":
            image = Image.fromarray(np.ascontiguousarray(np.asarray(image)[..., ::-1]))
        return transform.pixels(image)

    found: list[float] = []
    with ThreadPoolExecutor(cores_per_process()) as pool, torch.inference_mode():
        for batch in batched(files, batch_size):
            images = list(pool.map(pixels, batch))
            p = np.full(len(batch), np.nan)
            readable = [i for i, image in enumerate(images) if image is not None]
            if readable:
                stack = torch.from_numpy(np.stack([images[i] for i in readable])).to(device)
                p[readable] = classifier(normalize(stack)).float().sigmoid().cpu().numpy()
            found += p.tolist()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    setup_logging()
    config = get_config(args.cfg, args.opts)
    device = choose_device(args.device)
    probabilities = read_probabilities(args.folder)
    for part in PARTS:
        model = getattr(args, f"{part}_model")
        if model is None:
            continue
        places = list_crops(args.folder, part)
        if not places:
            raise UsageError(f"--{part}-model: no {part} crops in {args.folder}")
        files = [args.folder / part / place for place in places]
        classifier = load_classifier(model, config, device)
        scores = score_files(classifier, files, config, device, args.batch_size)
        known = {f: p for f, p in probabilities.items() if not f.startswith(f"{part}/")}
        judged = zip(files, scores, strict=True)
        found = {f"{part}/{file.name}": round(p, 4) for file, p in judged if np.isfinite(p)}
        probabilities = known | found
        logger.info(f"{part}: {len(found):,} of {len(files):,} crops judged")
    path = args.folder / PROBABILITIES_FILE
    write_json(path, probabilities)
    logger.info(f"{path}: written; next: python -m data.label {args.folder} --page")
    return 0


if __name__ == "__main__":
    run_main(main, (ConfigError,))
