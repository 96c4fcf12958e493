"""Pieces of videos: how processes share a few videos, and what a later run goes on from."""

from bisect import bisect_right
from collections.abc import Callable
from contextlib import ExitStack

from data.jobs import JobFolder
from data.records import Records
from data.video import Source
from models.scorer import VideoScorer
from utils import world_size

# A whole video at the end would keep one process busy and the others idle.
PIECES_PER_PROCESS = 16
BATCHES_PER_PIECE = 4  # at least


def starts(batches: int, pieces: int) -> list[int]:
    """Return where each of up to `pieces` pieces of about so many batches begins.

    The last piece goes on to the end, wherever that is.
    """
    pieces = max(1, min(pieces, batches // BATCHES_PER_PIECE))
    return [batches * i // pieces for i in range(pieces)]


class Sharing:
    """Finds what is in those batches of a video that no other process works on.

    `videos` is how many there are in all; `settings` decide, beside those of `jobs`, what is found.
    """

    def __init__(self, jobs: JobFolder, scorer: VideoScorer, videos: int, **settings):
        self.jobs, self.scorer = jobs, scorer
        self.settings = settings | {
            "batch_size": scorer.batch_size,
            "device": scorer.detector.device.type,
        }
        all_pieces = PIECES_PER_PROCESS * world_size() if world_size() > 1 else 1
        self._wanted = -(-all_pieces // videos)

    def records(self, source: Source) -> Records:
        """Return what is known of a video that is not finished."""
        return self.jobs.records(source, **self.settings)

    def pieces(self, frames: int) -> list[int]:
        """Return the first batch of each piece of a video of so many frames, alike everywhere."""
        return starts(frames // self.scorer.batch_size, self._wanted)

    def score(
        self,
        source: Source,
        pieces: list[int],
        on_frames: Callable[[int], None],
        *,
        dealt: bool,
    ) -> bool:
        """Find what is in the pieces that can be claimed; return whether there was something.

        The video is decoded once, whoever has what. `on_frames` learns how many frames were done.
        """
        known: dict[int, dict | None] = {}  # by piece: None where it is another process's
        worked = False

        def take(number: int) -> bool:
            piece = bisect_right(pieces, number) - 1
            if piece not in known:
                claim = self.jobs.claim(source, piece=piece, dealt=dealt)
                known[piece] = self.records(source).known if held.enter_context(claim) else None
            return known[piece] is not None and number not in known[piece]

        def on_batch(number: int, found: dict) -> None:
            nonlocal worked
            worked = True
            records.add(number, found)
            on_frames(len(found["rows"]))

        with ExitStack() as held, self.records(source).adding() as records:
            total = self.scorer.score_batches(source, take, on_batch)
            if worked:
                records.end(total)
        return worked
