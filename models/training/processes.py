"""How the processes of one training fail together: with one error line, printed by process 0."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from configs.defaults import ConfigError
from utils import UsageError, gather_objects, rank


@contextmanager
def shared_errors() -> Iterator[None]:
    """End all processes with the same error if the code inside fails in any of them.

    Every process must reach the end of the block, so no process may wait for others inside.
    """
    problem = None
    try:
        yield
    except (UsageError, ConfigError, OSError) as error:
        problem = str(error)
    problems = [found for found in gather_objects(problem) if found is not None]
    if problems:
        stop_all(problems[0])


def stop_all(problem: str) -> None:
    """Raise UsageError in process 0 and end the others; every process must call this.

    The others end with status 0: where one fails, torchrun stops all processes at once, perhaps
    before process 0 has printed its line.
    """
    if rank() == 0:
        raise UsageError(problem)
    sys.exit(0)
