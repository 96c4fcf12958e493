"""The reward's client: a service that is busy, and one that is gone."""

import threading

import numpy as np
import pytest

from human_anomaly.rewards import human_anatomy


def test_a_busy_service_is_asked_again(monkeypatch):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from human_anomaly.data import client

    answers = [(503, b'{"detail": "busy"}'), (503, b"?"), (200, b'{"videos": [{"error": "e"}]}')]
    waited, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = left.pop(0) if left else answers[0]
            self.send_response(status)
            self.send_header("Retry-After", "3")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(client.time, "sleep", waited.append)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    remote = human_anatomy(url=f"http://127.0.0.1:{server.server_port}/")
    assert remote(np.zeros((1, 8, 8, 3), np.uint8))[1]["error"] == ["e"]
    assert waited == [3, 3]
    with pytest.raises(ConnectionError, match="busy"):
        remote(np.zeros((1, 8, 8, 3), np.uint8))
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"[Rr]efused"):
        remote(np.zeros((1, 8, 8, 3), np.uint8))
