"""The service's client before servers that are none, and answers that it cannot read."""

import http.server
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from human_anomaly.data import client
from human_anomaly.rewards import human_anatomy

CLIP = np.zeros((1, 8, 8, 3), np.uint8)


@pytest.fixture
def server(monkeypatch) -> Iterator:
    """A server whose `answers` are (status, headers, body), the last one for all later requests."""
    waits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            answers = self.server.answers
            status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    monkeypatch.setattr(client.time, "sleep", waits.append)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.waits, running.url = waits, f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


GOOD = (200, {}, b'{"videos": [{"video_results": 0.5}]}')
# What a portal, a proxy or another service answers, and what is said of it.
NONE_OF_OURS = [
    (b"<!doctype html><p>please log in", r"expected serve\.py to answer there \(JSONDecodeError: "),
    (b'{"videos": []}', r"expected serve\.py to answer there \(IndexError: "),
    (b"[1]", r"expected serve\.py to answer there \(TypeError: "),
]


@pytest.mark.parametrize(("body", "said"), NONE_OF_OURS)
def test_an_answer_that_is_none_of_ours_is_one_line_at_once(server, body, said):
    server.answers = [(200, {}, body)]
    with pytest.raises(ConnectionError, match=rf"^{server.url}: {said}"):
        client.Client(server.url, None).clips([CLIP])
    assert server.waits == []


def test_a_token_that_no_header_holds_is_one_line_at_once(server):
    server.answers = [GOOD]
    with pytest.raises(ConnectionError, match=r"UnicodeEncodeError: "):
        client.Client(server.url, "\u20ac").clips([CLIP])
    assert client.Client(server.url, "token").clips([CLIP]) == [{"video_results": 0.5}]


def test_the_time_to_wait_may_be_a_date(server):
    busy = (503, {"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT"}, b"{}")
    server.answers = [busy, (503, {"Retry-After": "7"}, b"{}"), busy, GOOD]
    assert client.Client(server.url, None).clips([CLIP]) == [{"video_results": 0.5}]
    assert server.waits == [1, 7, 4]


def test_an_answer_that_breaks_off_is_asked_for_again(server):
    server.answers = [(200, {"Content-Length": "500"}, GOOD[2]), GOOD]
    assert client.Client(server.url, None).clips([CLIP]) == [{"video_results": 0.5}]
    assert server.waits == [1]


def test_a_busy_service_is_asked_again(server):
    server.answers = [
        (503, {"Retry-After": "3"}, b'{"detail": "busy"}'),
        (503, {"Retry-After": "3"}, b"?"),
        (200, {}, b'{"videos": [{"error": "e"}]}'),
    ]
    remote = human_anatomy(url=server.url)
    assert remote(CLIP)[1]["error"] == ["e"]
    assert server.waits == [3, 3]
    server.answers = [(503, {"Retry-After": "3"}, b'{"detail": "busy"}')]
    with pytest.raises(ConnectionError, match="busy"):
        remote(CLIP)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"[Rr]efused"):
        remote(CLIP)
