"""The finished batches of an unfinished video, kept so that a killed run is resumed within it."""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path


def _checked(line: bytes) -> bytes:
    """Return a line as `ResumeLog` keeps it: its checksum, a space, the line."""
    return b"%08x %b\n" % (zlib.crc32(line), line)


class ResumeLog:
    """The batches of an unfinished source: those that a killed run kept, and new ones.

    The file's first line, `head`, holds the settings on which the batches depend; a file of other
    settings is emptied. Each further line is a batch. Lines begin with their checksums, and the
    first damaged one and all after it are dropped.
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
        """Return the length in bytes of the file's undamaged beginning; 0 for another `head`."""
        end, head = 0, self.head.encode()
        if self.path.is_file():
            with self.path.open("rb") as lines:
                for line in lines:
                    if line != _checked(line[9:-1]) or not (end or line[9:-1] == head):
                        break
                    end += len(line)
        return end

    def kept(self) -> Iterator[dict]:
        """Yield the batches that an earlier run kept, in order."""
        position = 0
        with self.path.open("rb") as lines:
            for line in lines:
                if position and position < self._kept_end:
                    yield json.loads(line[9:])
                position += len(line)

    def add(self, batch: dict) -> None:
        """Keep one more batch; it is plain JSON."""
        self._write(json.dumps(batch))

    def _write(self, line: str) -> None:
        self._file.write(_checked(line.encode()))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "ResumeLog":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()
