"""What was found in a video that is not finished, kept so that a killed run goes on within it."""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path


def _checked(line: bytes) -> bytes:
    """Return a line as `Batches` keeps it: behind its checksum."""
    return b"%08x %b\n" % (zlib.crc32(line), line)


class Batches:
    """The batches of a source that is not finished: those that a killed run kept, and new ones.

    The file's first line, `head`, names what the batches depend on; one of other settings is begun
    anew. Each further line is a batch, after its checksum: what follows a damaged line is dropped.
    """

    def __init__(self, path: Path, head: Mapping):
        self.path, self.head = path, json.dumps(head, sort_keys=True)
        end = self._whole()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        self._kept_end = end
        if not end:
            self._write(self.head)

    def _whole(self) -> int:
        """Return the length of what can be kept, in bytes."""
        end, head = 0, self.head.encode()
        if self.path.is_file():
            with self.path.open("rb") as lines:
                for line in lines:
                    if line != _checked(line[9:-1]) or not (end or line[9:-1] == head):
                        break
                    end += len(line)
        return end

    def kept(self) -> Iterator[dict]:
        """Yield the batches that an earlier run kept, from the first on."""
        position = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if position and position < self._kept_end:
                    yield json.loads(line[9:])
                position += len(line)

    def add(self, batch: dict) -> None:
        """Keep one more batch, plain JSON."""
        self._write(json.dumps(batch))

    def _write(self, line: str) -> None:
        self._file.write(_checked(line.encode()))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()
