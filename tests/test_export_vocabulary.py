"""A detector without its text tower: smaller, with the same boxes."""

import pytest

from human_anomaly.models.checkpoint import CheckpointError
from human_anomaly.tools import export_vocabulary
from human_anomaly.utils import UsageError


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["missing.pth", "out.pth"], CheckpointError, "missing.pth: no such weight file"),
        (["missing.pth", "nowhere/out.pth"], UsageError, "OUT: expected a file in a folder"),
        (["missing.pth", "."], UsageError, "OUT: expected a file in a folder"),
    ],
)
def test_export_refuses_in_one_line(tmp_path, monkeypatch, words, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"^{message}"):
        export_vocabulary.main(words)
    assert not list(tmp_path.iterdir())
