"""The service under load: values equal to the in-process scorer's, memory that stays flat."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from service import running

from human_anomaly.hubconf import human_anatomy
from human_anomaly.rewards import human_anatomy as make_reward

pytestmark = pytest.mark.slow


def memory_mib(process) -> float:
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def test_eight_clients_with_twenty_clips_each(tmp_path, clip_of_people):
    """Each gets exactly the values of the in-process scorer, in its own order."""
    frames = {name: clip_of_people(name, 20) for name in ("hand_fused", "normal_1")}
    clips = [
        [
            (frames["hand_fused"] if (i + c) % 2 else frames["normal_1"])[i : i + 1, ::2, ::2]
            for i in range(20)
        ]
        for c in range(8)
    ]
    scorer = human_anatomy("demo", "cpu")
    expected = [[one.to_dict() for one in scorer.score_frames(mine)] for mine in clips]
    del scorer
    with running(tmp_path, "--max-waiting", "20") as service:  # fewer than come: some are refused

        def client(number: int):
            first = [torch.from_numpy(c.copy()).permute(0, 3, 1, 2) / 255 for c in clips[number]]
            return make_reward(url=service.url)(first, [""] * 20, [{}] * 20)

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(client, range(8)))
    for (scores, details), mine in zip(found, expected, strict=True):
        assert scores == [one["soft"] if one["people"] else 0.0 for one in mine]
        for name in ("micro", "macro", "soft", "people", "unreliable"):
            assert details[name] == [one[name] for one in mine]
        assert details["error"] == [None] * 20
    assert len({tuple(scores) for scores, _ in found}) > 1


def test_memory_is_flat_over_500_requests(tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros((4, 256, 256, 3), np.uint8))
    body = file.getvalue()
    with running(tmp_path) as service:

        def ask(number: int) -> None:
            wrong = number % 5 == 0
            status, _ = service.ask("/score", body[:-1] if wrong else body)
            assert status == (422 if wrong else 200)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(100)))  # until caches and pools are filled
            before = memory_mib(service.process)
            list(pool.map(ask, range(500)))
        assert memory_mib(service.process) - before < 30
