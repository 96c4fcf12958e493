"""serve.py for tests: a process of its own with the demo's weights, at a free port."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from conftest import ROOT


@dataclass
class Running:
    """A service; `lines` are what it logged."""

    process: subprocess.Popen
    url: str
    lines: list[str]
    token: str | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict]:
        """Return the status and the JSON of an answer."""
        if self.token and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.token}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def send_raw(self, content: bytes, *, end: bool = False) -> bytes:
        """Send bytes and return what comes back until the service closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(content)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


def form(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """Return the body and the Content-Type of a form with files."""
    head = '--limit\r\nContent-Disposition: form-data; name="file"; filename="{}"\r\n\r\n'
    parts = [head.format(name).encode() + content + b"\r\n" for name, content in files]
    return b"".join(parts) + b"--limit--\r\n", "multipart/form-data; boundary=limit"


def start(folder, *flags: str, port: int = 0, token: str | None = None) -> Running:
    """Start a service; temporary files go to `folder`."""
    command = [sys.executable, ROOT / "serve.py", "--device", "cpu", "--port", str(port)]
    command += ["--folder", folder, *flags]
    environment = os.environ | {"HUMAN_ANOMALY_TOKEN": token or ""}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line.rstrip())
        if found := re.search(r"ready: (\S+)", line):
            reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
            reader.start()
            return Running(process, found[1], lines, token)
    raise AssertionError(f"no service: {lines} {process.wait()}")


def stop(service: Running) -> int:
    service.process.terminate()
    return service.process.wait(120)


@contextmanager
def running(folder, *flags: str, token: str | None = None) -> Iterator[Running]:
    service = start(folder, *flags, token=token)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.wait()


def until(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come true")
