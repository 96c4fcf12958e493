"""A server on this machine that works, breaks off, truncates and lies.

It serves plain files, and speaks as much of Hugging Face's protocol as fetching a file or a data
set needs. Nothing in a test leaves the machine.
"""

import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

REVISION = "0123456789abcdef0123456789abcdef01234567"


class LocalServer(http.server.ThreadingHTTPServer):
    """Serves `files` (name to bytes) from 127.0.0.1 in the given `mood`."""

    def __init__(self, files: Mapping[str, bytes]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.mood = dict(files), "good"
        self.offsets: list[int] = []  # where each request for a file began
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def local_server(files: Mapping[str, bytes]) -> Iterator[LocalServer]:
    """Run a LocalServer in a thread."""
    server = LocalServer(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        path = self.path.split("?")[0]
        if server.mood == "down":
            return self.send_error(503)
        if server.mood == "portal":
            self.send_response(200)
            self.end_headers()
            return self.wfile.write(b"<!doctype html><p>please log in")
        if re.fullmatch(r"/api/datasets/[^/]+/[^/]+(/revision/[^/]+)?", path):
            siblings = [{"rfilename": name} for name in server.files]
            info = {"id": "x/y", "sha": REVISION, "siblings": siblings}
            return self.answer(json.dumps(info).encode())
        if "/tree/" in path:
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}
                for name, content in server.files.items()
            ]
            return self.answer(json.dumps(listed).encode())
        body = server.files.get(re.sub(r"^/(.*/resolve/[^/]+/)?", "", path))
        if body is None:
            return self.answer(b"", status=404, error="EntryNotFound")
        if server.mood == "page":
            return self.answer(b"<!doctype html><p>quota exceeded")
        if server.mood == "truncates":
            body = body[: len(body) // 2]  # and says that this is all
        if server.mood == "lies":
            body = body[:-9] + b"?" + body[-8:]
        found = re.search(r"bytes=(\d+)-", self.headers.get("Range", ""))
        offset = int(found[1]) if found else 0
        if self.command == "GET":
            server.offsets.append(offset)
        self.answer(body, offset)

    def answer(self, body: bytes, offset: int = 0, status: int = 200, error: str = "") -> None:
        sent = body[offset:]
        self.send_response(206 if offset else status)
        self.send_header("Content-Length", str(len(sent)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("X-Repo-Commit", REVISION)
        if error:
            self.send_header("X-Error-Code", error)
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.close_connection = True
        if self.command == "HEAD":
            return
        if self.server.mood in ("breaks once", "breaks off") and len(sent) > 1000:
            sent = sent[: len(sent) // 2]
            if self.server.mood == "breaks once":
                self.server.mood = "good"
        self.wfile.write(sent)
