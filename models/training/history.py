"""A run's history: the rows of metrics.jsonl, and the same numbers for TensorBoard if asked for."""

import importlib.util
import json
from contextlib import suppress
from pathlib import Path

from human_anomaly.utils import UsageError, rank, write_jsonl

BOARD = "tensorboard"  # the folder of TensorBoard's files, in the run's folder


class History:
    """Appends rows to a run's metrics.jsonl, in process 0.

    With `tensorboard`, their numbers also go to TensorBoard, at the step after which they were
    measured. Points that a killed run wrote from `first_epoch` on are removed from its curves.
    """

    def __init__(self, folder: Path, steps: int, first_epoch: int, *, tensorboard: bool):
        self.folder, self.steps, self.board = folder, steps, None
        if tensorboard and rank() == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / BOARD), purge_step=first_epoch * steps)

    def add(self, row: dict) -> None:
        """Append a row; raises UsageError where metrics.jsonl cannot be written."""
        if rank() != 0:
            return
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UsageError(f"{path}: cannot write: {error}") from error
        if self.board is None:
            return
        step = row.get("step", (row["epoch"] + 1) * self.steps - 1)
        for name, value in scalars(row).items():
            self.board.add_scalar(name, value, step)
        if "step" not in row:
            self.board.flush()


def scalars(row: dict) -> dict[str, float]:
    """Return the numbers of a row of metrics.jsonl, by TensorBoard's names."""
    if "step" in row:
        return {f"step/{name}": row[name] for name in ("loss", "grad_norm", "lr")}
    numbers = {name: v for name, v in row["val"].items() if isinstance(v, float)}
    return {"train/loss": row["train_loss"]} | {f"val/{name}": v for name, v in numbers.items()}


def check_tensorboard() -> None:
    """Raise UsageError where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        wanted = "pip install 'tensorboard>=2.18,<3'"
        raise UsageError(f"--tensorboard: TensorBoard is not installed; run {wanted}")


def keep_metrics(path: Path, before_epoch: int) -> None:
    """Drop the rows of epochs that will be trained again, and a half-written last row."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError, TypeError, KeyError):
                row = json.loads(line)
                rows += [row] if row["epoch"] < before_epoch else []
        write_jsonl(path, rows)
