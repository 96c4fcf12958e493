"""What is known so far of an item that is not finished: numbered records, by any process."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO


class Records:
    """The records in `folder` as they were when it was read, and how to add to them.

    Each opening writes a file of its own, so processes do not meet; a line that was cut off does
    not count, nor do files that begin with another `head`, a plain JSON object.
    """

    def __init__(self, folder: Path, head: Mapping):
        self.folder, self.head = folder, dict(head)
        self.known: dict[int, dict] = {}
        self.total: int | None = None
        self._file: TextIO | None = None
        for path in folder.glob("*.jsonl"):
            rows = _whole_rows(path)
            for row in rows[1:] if rows[:1] == [self.head] else []:
                if "total" in row:
                    self.total = row["total"]
                else:
                    self.known[row["number"]] = row["record"]

    def complete(self) -> bool:
        """Return whether all the item's records are known."""
        return self.total is not None and all(n in self.known for n in range(self.total))

    @contextmanager
    def adding(self) -> Iterator["Records"]:
        """Let `add` and `end` write, into a file that the first of them makes."""
        with ExitStack() as self._open:
            try:
                yield self
            finally:
                self._file = None

    def add(self, number: int, record: dict) -> None:
        """Keep a record, plain JSON."""
        self._write({"number": number, "record": record})

    def end(self, total: int) -> None:
        """Keep how many records the item has."""
        self._write({"total": total})

    def _write(self, row: dict) -> None:
        if self._file is None:
            self.folder.mkdir(exist_ok=True)
            path = self.folder / f"{secrets.token_hex(8)}.jsonl"
            self._file = self._open.enter_context(path.open("w", encoding="utf-8"))
            self._write(self.head)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def _whole_rows(path: Path) -> list:
    """Return the rows of a JSON lines file up to the first that is not whole."""
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            rows.append(json.loads(line))
    except (OSError, ValueError):
        pass
    return rows
