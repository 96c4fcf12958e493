"""What reads files of others holds: a few tries in `make test`, hundreds in `make check`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack import attack

FEW = {"videos": 6, "names": 15, "states": 20, "checkpoints": 6}
MANY = {"videos": 300, "names": 100, "states": 60, "checkpoints": 160}


@pytest.mark.parametrize("kind", FEW)
def test_a_few_tries_lose_nothing(kind):
    outcomes, lost = attack(kind, FEW[kind])
    assert lost == {}
    assert outcomes.total() == FEW[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", MANY)
def test_many_tries_lose_nothing(kind):
    _, lost = attack(kind, MANY[kind])
    assert lost == {}
