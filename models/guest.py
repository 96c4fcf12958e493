"""How a scorer behaves in other people's programs."""

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def leave_no_trace() -> Iterator[None]:
    """Restore the random generators, `sys.path`, the environment and the filters of warnings.

    Warnings of the libraries that are imported inside are not shown: a user can do nothing about
    them. Not for code that runs beside other threads of ours.
    """
    import numpy as np
    import torch

    path, environment = sys.path[:], dict(os.environ)
    states = random.getstate(), np.random.get_state()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.meshgrid(torch.zeros(1))  # as the detector calls it: torch warns the first time only
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            sys.path[:] = path
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


class StaysInProcess:
    """A base for objects with threads: they cannot be pickled, and would hang after a fork."""

    def __init__(self):
        self._process = os.getpid()

    def refuse_a_fork(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("a scorer does not work after a fork: create it in the worker")

    def __reduce__(self):
        raise TypeError("a scorer cannot be pickled: create it in the worker")
