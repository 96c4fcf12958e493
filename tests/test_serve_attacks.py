"""Malformed and hostile requests: each gets a status of 4xx with one sentence, and no more."""

import base64
import gzip
import io
import json
import pickle
import time
import zipfile
import zlib

import numpy as np
import pytest
from service import form, running, until

LIMIT = 2**20
pytestmark = pytest.mark.slow
TOKEN = "secret"
CLIP = np.zeros((2, 40, 40, 3), np.uint8)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def declared(shape: str, descr: str = "'|u1'", content: bytes = b"", version: bytes = b"\1\0"):
    """Return a .npy file whose header says anything."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + content


def bomb_png(side: int = 30_000) -> str:
    """Return a picture of 2.7 GB in a few MB, or of a few GB declared alone."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    size = side.to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    content = (
        chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 10**6)) + chunk(b"IEND", b"")
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + content).decode()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * 10**8)
    return file.getvalue()


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/human-anomaly-evil", "w"))


def as_json(value) -> tuple[bytes, str]:
    return json.dumps(value).encode(), "application/json"


FILE = "application/octet-stream"
WHOLE, KIND = form(("a.npy", npy(CLIP)))
# The name, the body, its type, the expected status, words of the sentence.
REQUESTS = [
    ("nothing", b"", FILE, 400, "empty"),
    ("text", b"hello", "text/plain", 422, "not a video"),
    ("noise", np.random.default_rng(0).bytes(5000), "video/mp4", 422, "not a video"),
    ("playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "video/mp4", 422, ""),
    ("concat", b"ffconcat version 1.0\nfile /etc/passwd\n", "video/mp4", 422, ""),
    ("zip bomb", zipped(), FILE, 422, "not a video"),
    ("too large", b"\0" * (LIMIT + 1), FILE, 413, "larger than 1,048,576 bytes"),
    ("pickled array", npy(np.array([Evil()])), FILE, 422, "got object"),
    ("pickle", pickle.dumps(Evil()), FILE, 422, "not a video"),
    ("10^9 frames", declared("(1000000000, 480, 480, 3)"), FILE, 422, " 0 bytes came"),
    ("10^9 frames of nothing", declared("(1000000000, 0, 480, 3)"), FILE, 422, ""),
    ("negative", declared("(-1, 40, 40, 3)"), FILE, 422, "came"),
    ("huge number", declared(f"({'9' * 3000},)"), FILE, 422, ""),
    ("no shape", declared("'abc'"), FILE, 422, ""),
    ("deep header", declared("(" * 2000 + ")" * 2000), FILE, 422, ""),
    ("code in a header", declared("__import__('os').getpid()"), FILE, 422, ""),
    ("other version", declared("(1,)", version=b"\3\0"), FILE, 422, "version 1.0 or 2.0"),
    ("no version", declared("(1,)", version=b"\x09\x09"), FILE, 422, ""),
    ("magic alone", b"\x93NUMPY", FILE, 422, ""),
    ("cut off array", npy(CLIP)[:-1], FILE, 422, "9,599 bytes came"),
    ("long array", npy(CLIP) + b"x", FILE, 422, "9,601 bytes came"),
    ("structured", declared("(1,)", "[('a', '|u1')]", b"x"), FILE, 422, ""),
    ("integers", npy(CLIP.astype(np.int16)), FILE, 422, "got int16"),
    ("strings", npy(np.array(["a"])), FILE, 422, "got <U1"),
    ("a vector", npy(CLIP.ravel()), FILE, 422, "shape"),
    ("four channels", npy(np.zeros((1, 40, 40, 4), np.uint8)), FILE, 422, "RGB"),
    ("out of range", npy(CLIP - 1.0), FILE, 422, "0..1"),
    ("not a number", npy(np.full((1, 40, 40, 3), np.nan, "f4")), FILE, 422, "0..1"),
    ("many frames", npy(np.zeros((101, 8, 8, 3), np.uint8)), FILE, 422, "101 frames"),
    ("many pixels", npy(np.zeros((1, 400, 400, 3), np.uint8)), FILE, 422, "160,000 pixels"),
    ("many clips", npy(np.zeros((99, 1, 8, 8, 3), np.uint8)), FILE, 413, "at most 64"),
    ("form without boundary", WHOLE, "multipart/form-data", 400, "boundary"),
    ("form of another boundary", WHOLE, "multipart/form-data; boundary=x", 400, ""),
    ("cut off form", WHOLE[:-5], KIND, 400, "cut off"),
    ("cut off in a file", WHOLE[: len(WHOLE) // 2], KIND, 400, "cut off"),
    ("form without files", b"--limit--\r\n", KIND, 400, "no file"),
    ("form with a field", form()[0], KIND, 400, "no file"),
    ("no JSON", b"{", "application/json", 422, "JSON"),
    ("deep JSON", b"[" * 500_000, "application/json", 422, "JSON"),
    ("a list", *as_json([1]), 422, "JSON"),
    ("no pictures", *as_json({"prompt": ["a"], "video": None}), 422, "base64 pictures"),
    ("no base64", *as_json({"video": [["%%"]]}), 422, "JSON"),
    ("no picture", *as_json({"video": [["aGVsbG8="]]}), 422, "JSON"),
    ("numbers", *as_json({"video": [[1, 2]]}), 422, "JSON"),
    ("empty video", *as_json({"video": [[]]}), 422, "JSON"),
    ("picture bomb", *as_json({"image": [bomb_png()]}), 422, "JSON"),
    ("picture larger than the limit", *as_json({"image": [bomb_png(5000)]}), 413, "take more"),
    ("cut off picture", *as_json({"image": [bomb_png(200)[:80]]}), 422, "JSON"),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    flags = ["--max-mb", "1", "--max-frames", "100", "--max-pixels", "100000"]
    flags += ["--body-seconds", "2", "--max-waiting", "3"]
    with running(tmp_path_factory.mktemp("service"), *flags, token=TOKEN) as service:
        yield service
        assert not [line for line in service.lines if "Traceback" in line]


@pytest.fixture(autouse=True)
def healthy(service):
    yield
    status, said = service.ask("/health")
    assert status == 200 and said["ready"]
    until(lambda: service.ask("/health")[1]["queue"] == 0)  # answers come before places are free


def test_there_are_enough():
    assert len(REQUESTS) >= 40 and len({name for name, *_ in REQUESTS}) == len(REQUESTS)


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS]
)
def test_a_malformed_request_is_answered_by_a_sentence(service, body, kind, status, words):
    found, said = service.ask("/score", body, Content_Type=kind)
    assert found == status and set(said) == {"detail"}
    assert words in said["detail"] and len(said["detail"]) < 500 and "\n" not in said["detail"]
    assert "passwd" not in said["detail"] and "root:" not in said["detail"]


def test_a_good_request_is_answered_all_the_same(service):
    status, said = service.ask("/score", npy(CLIP), Content_Type=FILE)
    assert status == 200 and said["videos"][0]["frames"] == 2


@pytest.mark.parametrize("token", ["", "wrong", "Bearer", "Bearer wrong", "Bearer secret2", "é"])
def test_a_wrong_token(service, token):
    status, said = service.ask("/score", npy(CLIP), Content_Type=FILE, Authorization=token)
    assert status == 401 and "token" in said["detail"]
    status, said = service.ask("/health", Authorization=token)
    assert (status, said) == (200, {"ready": True})


def request(head: str, body: bytes = b"") -> bytes:
    lines = ["POST /score HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}", head]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (request("Content-Length: 100", b"abc"), 408),  # and then nothing
        (request("Content-Length: 99999999999"), 413),
        (request("Transfer-Encoding: chunked", b"200001\r\n" + b"x" * 0x200001 + b"\r\n"), 413),
        (request("Transfer-Encoding: chunked", b"zz\r\n"), 400),
        (request("Content-Length: x"), 400),
        (request("Content-Encoding: gzip\r\nContent-Length: 9", gzip.compress(CLIP)[:9]), 415),
        (b"POST /score HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 401),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", 400),
        (b"GET /score HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /assets/../app.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    ],
)
def test_requests_that_are_no_good_http(service, content, status):
    answer = service.send_raw(content)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]


def test_slow_bodies_do_not_stop_others(service):
    import socket

    slow = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(2)]
    for connection in slow:
        connection.sendall(request("Content-Length: 100000", b"a"))
    start = time.monotonic()
    while (status := service.ask("/score", npy(CLIP), Content_Type=FILE)[0]) == 503:
        assert time.monotonic() - start < 60
    assert status == 200
    for connection in slow:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
        connection.close()


def test_other_sites_do_not_reach_a_service_without_token(tmp_path):
    with running(tmp_path) as service:
        line = b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: "
        assert b"400 Bad" in service.send_raw(line + b"evil.example\r\n\r\n")
        assert b"200 OK" in service.send_raw(line + b"localhost:8000\r\n\r\n")
