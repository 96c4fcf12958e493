"""The service for real: what clips and videos get, who leaves, what is left, how it ends."""

import base64
import io
import json
import re
import signal
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from service import form, running, start, stop, until

from human_anomaly.hubconf import human_anatomy
from human_anomaly.models.serving.reports import Reports

VIDEO = ROOT / "demo/videos/hand_fused.mp4"
JSON = {"Content_Type": "application/json"}
NPY = {"Content_Type": "application/x-npy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def service(folder):
    with running(folder, "--max-waiting", "4") as service:
        yield service


@pytest.fixture(scope="module")
def scorer():
    return human_anatomy("demo", "cpu")


@pytest.fixture(scope="module")
def clip(clip_of_people):
    return clip_of_people("hand_fused", 2)


@pytest.fixture(scope="module")
def expected(scorer, clip):
    return scorer.score_frames(clip)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(frame) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def left_in(folder) -> list[str]:
    """Return what a running service has in its folder, but for the reports."""
    (own,) = folder.glob("human-anomaly-serve-*")
    return sorted({path.name for path in own.iterdir()} - {".lock", "reports"})


def test_health(service):
    status, said = service.ask("/health")
    assert status == 200 and said["ready"] is True and said["queue"] == 0
    assert (said["device"], said["dtype"]) == ("cpu", "float32")
    assert said["weights"] == {k: f"{k}.pth" for k in ("detector", "human", "face", "hand")}
    assert said["limits"]["waiting"] == 4 and said["demo"] is True


def test_frames_of_a_clip(service, clip, expected, folder):
    status, said = service.ask("/score?frames=1", npy(clip), **NPY)
    (row,) = said["videos"]
    assert status == 200 and said["rewards"] == [expected.soft]
    assert row.pop("frame_rows") == expected.frames and row.pop("per_person") == expected.people
    assert (row.pop("video_path"), row.pop("warnings"), row.pop("dtype")) == ("clip", [], "float32")
    assert row.pop("unreliable") is None and row == expected.summary
    assert left_in(folder) == []


@pytest.mark.parametrize(
    ("change", "query"),
    [
        (lambda c: c.transpose(0, 3, 1, 2), ""),
        (lambda c: c.transpose(0, 3, 1, 2), "?layout=TCHW"),
        (lambda c: (c / 255).astype(np.float16), ""),
        (lambda c: np.asfortranarray(c), ""),
        (lambda c: c[None], ""),
    ],
)
def test_formats_of_clips(service, clip, expected, change, query):
    status, said = service.ask(f"/score{query}", npy(change(clip)), **NPY)
    assert status == 200 and said["rewards"] == [expected.soft]


def test_a_form_with_videos_and_clips_in_their_order(service, scorer, clip, expected, folder):
    files = [
        ("../../etc/a\x1b[31m.mp4", VIDEO.read_bytes()),
        ("clips.npy", npy(np.stack([clip, clip[::-1]]))),
        ("broken.mp4", b"no video"),
        ("odd.npy", npy(np.zeros((2, 8, 8, 3), int))),
    ]
    body, kind = form(*files)
    status, said = service.ask("/score", body, Content_Type=kind)
    video, first, second, broken, odd = said["videos"]
    whole = scorer.score(VIDEO)
    assert status == 200 and video["video_results"] == whole.micro
    assert video["frames"] == video["frames_expected"] == 38 and video["seconds"] > 0
    assert "\x1b" not in video["video_path"] and video["video_path"].endswith("etc/a\\x1b[31m.mp4")
    assert (first["score_soft"], first["video_path"]) == (expected.soft, "clips.npy")
    assert second["score_soft"] == scorer.score_frames(clip[::-1]).soft
    assert set(broken) == set(odd) == {"video_path", "error"}
    assert "not a video" in broken["error"] and "got int64" in odd["error"]
    assert said["rewards"][0] == whole.soft and said["rewards"][3:] == [0.0, 0.0]
    assert left_in(folder) == []


def test_a_video_as_the_whole_body(service, scorer):
    status, said = service.ask("/score", VIDEO.read_bytes(), Content_Type="video/mp4")
    assert status == 200 and said["rewards"] == [scorer.score(VIDEO).soft]


def test_flow_factorys_json(service, clip, expected):
    frames = [png(frame) for frame in clip]
    content = {"prompt": ["a", "b"], "image": None, "video": [frames, frames[:1]]}
    status, said = service.ask("/compute", json.dumps(content).encode(), **JSON)
    assert status == 200 and said["rewards"][0] == expected.soft and len(said["rewards"]) == 2
    content = {"prompt": ["a"], "image": [frames[0]], "video": None}
    status, one = service.ask("/score", json.dumps(content).encode(), **JSON)
    assert status == 200 and one["rewards"] == said["rewards"][1:]


def test_requests_that_wait_are_scored_together(monkeypatch, scorer, clip, tmp_path):
    from human_anomaly.models.serving.line import Limits, Line, Task

    sizes, real, go = [], scorer.score_frames, threading.Event()

    def slow(clips):
        go.wait(60)
        sizes.append(len(clips))
        return real(clips)

    monkeypatch.setattr(scorer, "score_frames", slow)
    limits = Limits(2**20, 10, 10**6, 9, 9, 9)
    line = Line(scorer, limits, Reports(tmp_path / "reports", 1, 1))
    tasks = [Task(str(number), clip=clip[number % 2 :]) for number in range(5)]
    line.add(tasks[0])
    until(lambda: tasks[0].future.running())
    for task in tasks[1:]:
        line.add(task)
    tasks[2].give_up("left")
    go.set()
    rows = [task.future.result(60) for task in tasks if not task.future.cancelled()]
    assert sizes == [1, 3]
    assert [row["video_path"] for row in rows] == ["0", "1", "3", "4"]
    assert [row["frames"] for row in rows] == [2, 1, 1, 2]


def begin(service, path: str, body: bytes, kind: str) -> socket.socket:
    """Send a request and do not wait for its answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=120)
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_places_are_limited_and_who_leaves_frees_one(service, clip, folder):
    long = npy(np.repeat(clip, 30, 0)[:, ::4, ::4])
    open_ones = [begin(service, "/score", long, "application/x-npy") for _ in range(4)]
    until(lambda: service.ask("/health")[1]["queue"] == 4)
    status, said = service.ask("/score", npy(clip), **NPY)
    assert status == 503 and said["detail"].startswith("4 requests are waiting already")
    answer = begin(service, "/score", npy(clip[:1]), "application/x-npy").recv(4096).decode()
    assert "retry-after: 2" in answer.lower()
    for connection in open_ones:
        connection.close()
    until(lambda: service.ask("/health")[1]["queue"] == 0)
    assert left_in(folder) == []
    assert service.ask("/score", npy(clip[:1]), **NPY)[0] == 200


def test_a_video_is_given_up_when_its_client_leaves(service, clip):
    begin(service, "/score", VIDEO.read_bytes(), "video/mp4").close()
    start = time.monotonic()
    assert service.ask("/score", npy(clip[:1]), **NPY)[0] == 200
    until(lambda: service.ask("/health")[1]["queue"] == 0)
    assert time.monotonic() - start < 600


def test_a_report_comes_with_its_progress(service, folder):
    body, kind = form(("<b>mine</b>.mp4", VIDEO.read_bytes()))
    with begin(service, "/report", body, kind) as connection:
        answer = b""
        while b'"page"' not in answer or not answer.endswith(b"0\r\n\r\n"):
            more = connection.recv(65536)
            assert more, answer
            answer += more
    lines = [json.loads(line) for line in re.findall(r"^\{.*\}$", answer.decode(), re.M)]
    seen = [line["frames"] for line in lines[:-1]]
    assert len(seen) > 2 and seen == sorted(seen) and lines[-2]["expected"] == 38
    assert lines[-1]["video_results"] == 0.5 and lines[-1]["tracks"] == 2
    page = f"{service.url}/reports/{lines[-1]['page']}"
    code, _, _ = lines[-1]["page"].partition("/")
    assert len(code) > 20
    until(lambda: left_in(folder) == [])
    with urllib.request.urlopen(page) as answer:
        text = answer.read().decode()
        assert "&lt;b&gt;mine" in text and "<b>mine" not in text
        assert "demo weights" not in text  # which score a video of the demo here
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    part = urllib.request.Request(page.replace("index.html", "video.webm"))
    part.add_header("Range", "bytes=0-99")
    with urllib.request.urlopen(part) as answer:
        assert answer.status == 206 and len(answer.read()) == 100
    for path in ("/reports/", f"/reports/{code}/../", "/reports/..%2f.lock", "/reports/nothing/"):
        status = service.send_raw(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        assert status.startswith(b"HTTP/1.1 404"), path


def test_a_report_of_no_video_says_so(service):
    body, kind = form(("a.mp4", b"no video"))
    request = service.send_raw(
        f"POST /report HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    assert request.startswith(b"HTTP/1.1 200") and b'"error": "not a video' in request
    status, said = service.ask("/report", npy(np.zeros((1, 8, 8, 3), np.uint8)), **NPY)
    assert (status, said["detail"]) == (422, "expected one video for a report")


def test_sigterm_finishes_what_runs_and_refuses_what_waits(tmp_path, clip, scorer):
    service = start(tmp_path)
    try:
        running_one = begin(service, "/score", VIDEO.read_bytes(), "video/mp4")
        until(lambda: service.ask("/health")[1]["queue"] == 1)
        time.sleep(1)
        waiting = begin(service, "/score", npy(clip), "application/x-npy")
        until(lambda: service.ask("/health")[1]["queue"] == 2)
        assert stop(service) == 0
        answers = [b"".join(iter(lambda c=c: c.recv(65536), b"")) for c in (running_one, waiting)]
        assert answers[0].startswith(b"HTTP/1.1 200")
        assert json.loads(answers[0].partition(b"\r\n\r\n")[2])["rewards"] == [
            scorer.score(VIDEO).soft
        ]
        assert answers[1].startswith(b"HTTP/1.1 503") and b"shutting down" in answers[1]
        assert not [line for line in service.lines if "Traceback" in line]
        assert list(tmp_path.iterdir()) == []
    finally:
        service.process.kill()


@pytest.mark.slow
def test_killed_and_started_again(tmp_path, clip, expected):
    service = start(tmp_path)
    connection = begin(service, "/score", VIDEO.read_bytes(), "video/mp4")
    until(lambda: left_in(tmp_path) != [])
    other = start(tmp_path)  # leaves the first one's files alone
    try:
        assert len(list(tmp_path.iterdir())) == 2
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        connection.close()
        again = start(tmp_path, port=service.port)
        assert len(list(tmp_path.iterdir())) == 2  # those of the killed one are gone
        status, said = again.ask("/score", npy(clip), **NPY)
        assert status == 200 and said["rewards"] == [expected.soft]
        assert stop(again) == 0 and stop(other) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        for one in (service, other, again):
            one.process.kill()
