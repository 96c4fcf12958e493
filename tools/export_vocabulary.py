"""Replace a detector's text tower by the embeddings of its prompts.

    python -m tools.export_vocabulary IN OUT

OUT finds the same boxes for these prompts, and lacks the text tower's 63 M parameters.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from human_anomaly.configs.parts import TABLE
from human_anomaly.models.checkpoint import pick_state, read_checkpoint
from human_anomaly.models.detector import PADDING
from human_anomaly.models.yolo_world.build import embed, split_state
from human_anomaly.utils import UsageError, atomic_write, command_parser, run_main

TEXTS = (*dict.fromkeys(part.text for part in TABLE), PADDING)


def with_vocabulary(
    state: Mapping[str, Tensor], texts: Sequence[str], embeddings: Tensor, *, half: bool = False
) -> dict:
    """Return the content of our own checkpoints: a detector's `state` and its vocabulary.

    `embeddings` are (len(texts), 512). With `half`, floating-point tensors become float16.
    """

    def store(value: Tensor) -> Tensor:
        value = value.detach().cpu()
        return value.half() if half and value.is_floating_point() else value.clone()

    return {
        "meta": {},
        "state_dict": {name: store(value) for name, value in state.items()},
        "vocabulary": {
            "texts": list(texts),
            "embeddings": embeddings.detach().cpu().to(torch.float16 if half else torch.float32),
        },
    }


def export_vocabulary(
    source: str | Path, target: str | Path, texts: Sequence[str] = TEXTS, *, half: bool = False
) -> None:
    """Write the detector at `source` to `target`, its text tower replaced by embeddings of `texts`.

    Raises CheckpointError where `source` is no detector or cannot embed the texts.
    """
    content = read_checkpoint(source)
    state, text_state = split_state(pick_state(content, ("state_dict",), source))
    embeddings = embed(texts, content, text_state, source)
    with atomic_write(target, "wb") as file:
        torch.save(with_vocabulary(state, texts, embeddings, half=half), file)


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser(__doc__, "tools.export_vocabulary")
    add = parser.add_argument
    add("source", metavar="IN", type=Path, help="a YOLO-World checkpoint")
    add("target", metavar="OUT", type=Path, help="the file to write")
    text = "prompts to keep (default: those of configs/parts.py and the padding text)"
    add("--texts", nargs="+", default=TEXTS, metavar="TEXT", help=text)
    add("--half", action="store_true", help="store weights in float16")
    args = parser.parse_args(argv)
    if args.target.is_dir() or not args.target.resolve().parent.is_dir():
        raise UsageError(f"OUT: expected a file in a folder that exists, got {args.target}")
    export_vocabulary(args.source, args.target, args.texts, half=args.half)
    before, after = (path.stat().st_size / 1e6 for path in (args.source, args.target))
    print(f"{args.target}: {after:.1f} MB ({args.source} has {before:.1f} MB)")
    return 0


if __name__ == "__main__":
    run_main(main)
