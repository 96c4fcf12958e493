"""Each source of files, with a server that breaks off, truncates, lies, or is not there."""

import inspect
import sys
import time
import types
from pathlib import Path

import huggingface_hub
import pytest
from filelock import FileLock
from local_server import REVISION, LocalServer, local_server

from human_anomaly.data.download import fetch
from human_anomaly.data.download.fetch import FetchError

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the libraries' attempts
    with local_server({"a.bin": CONTENT, "sub/b.bin": CONTENT[::-1]}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def drive(monkeypatch):
    """A stand-in for gdown; a test sets `content`, or the `error` that it raises."""
    stub = types.ModuleType("gdown")
    stub.DownloadError = type("DownloadError", (Exception,), {})
    stub.content, stub.error, stub.calls = CONTENT, None, []

    def download(**options):
        stub.calls.append(options)
        if stub.error:
            raise stub.error
        Path(options["output"]).write_bytes(stub.content)

    stub.download = download
    monkeypatch.setitem(sys.modules, "gdown", stub)
    return stub


def source(kind: str, server: LocalServer):
    """Return the function (path -> None) that fetches from the server as `kind` says."""
    if kind == "hub":
        return lambda path: fetch.from_hub("owner/repo", path)
    return lambda path: fetch.from_mirror(server.url, path)


@pytest.mark.parametrize("kind", ["hub", "mirror"])
def test_file_arrives(server, tmp_path, kind):
    source(kind, server)(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_hub_goes_on_where_the_connection_broke_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # kept: whole ones
    server.mood = "breaks off"
    fetch.from_hub("owner/repo", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.offsets[:2] == [0, len(CONTENT) // 2] and len(server.offsets) > 4


# The source, the server's mood, the file, and what the error names.
FAILURES = [
    ("hub", "good", "none.bin", ["{url}/owner/repo: ", "EntryNotFoundError", "404"]),
    ("hub", "down", "a.bin", ["{url}/owner/repo: LocalEntryNotFoundError: "]),
    ("mirror", "good", "none.bin", ["--mirror: HTTPError: HTTP Error 404"]),
    ("mirror", "down", "a.bin", ["--mirror: HTTPError: HTTP Error 503"]),
]


@pytest.mark.parametrize(("kind", "mood", "name", "words"), FAILURES)
def test_absent_files_and_servers_are_one_line(server, tmp_path, kind, mood, name, words):
    server.mood = mood
    with pytest.raises(FetchError) as error:
        source(kind, server)(tmp_path / name)
    assert all(word.format(url=server.url) in str(error.value) for word in words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / name).exists()


# Variables of the environment, and what the library makes of them.
ODD = [
    ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ImportError: Using SOCKS proxy"),
    ({"ALL_PROXY": "socks://127.0.0.1:9/"}, "ValueError: "),  # as GNOME sets it
    ({"HTTP_PROXY": "127.0.0.1:odd"}, ""),
    ({"HF_TOKEN": "hf_\u00e9"}, "UnicodeEncodeError: "),
]


@pytest.mark.parametrize(("variables", "kind"), ODD)
def test_odd_proxies_and_tokens_are_one_line(server, tmp_path, monkeypatch, variables, kind):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    huggingface_hub.close_session()  # it keeps the proxies that it began with
    try:
        for get in (fetch.from_hub, fetch.data_set_from_hub):
            with pytest.raises(
                FetchError, match=rf"^{server.url}/(datasets/)?owner/x: {kind}"
            ) as e:
                get("owner/x", tmp_path / "a.bin")
            assert "\n" not in str(e.value)
    finally:
        huggingface_hub.close_session()


def test_a_portal_that_answers_a_page_is_one_line(server, tmp_path):
    server.mood = "portal"
    for get in (fetch.from_hub, fetch.data_set_from_hub):
        with pytest.raises(
            FetchError, match=rf"^{server.url}/(datasets/)?owner/x: \w+: ."
        ) as error:
            get("owner/x", tmp_path / "a.bin")
        assert "\n" not in str(error.value)


def test_no_server_at_all_is_one_line(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"^http://127\.0\.0\.1:9/owner/repo: "):
        fetch.from_hub("owner/repo", tmp_path / "a.bin")
    with pytest.raises(FetchError, match=r"^--mirror: URLError: .*refused"):
        fetch.from_mirror("http://127.0.0.1:9", tmp_path / "a.bin")


def test_folder_as_mirror(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/a.bin").write_bytes(CONTENT)
    fetch.from_mirror(str(tmp_path / "copy"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    with pytest.raises(FetchError, match=r"--mirror: FileNotFoundError: .*copy/b\.bin"):
        fetch.from_mirror(str(tmp_path / "copy"), tmp_path / "b.bin")
    with pytest.raises(FetchError, match=r"--mirror: expected a URL or a folder, got .*none"):
        fetch.from_mirror(str(tmp_path / "none"), tmp_path / "b.bin")


def test_drive_is_asked_to_go_on_and_without_cookies(drive, tmp_path):
    fetch.from_drive("id", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert drive.calls[0]["id"] == "id" and drive.calls[0]["resume"] is True
    assert drive.calls[0]["use_cookies"] is False


def test_the_real_gdown_has_these_options(drive, tmp_path, monkeypatch):
    fetch.from_drive("id", tmp_path / "a.bin")
    monkeypatch.delitem(sys.modules, "gdown")
    gdown = pytest.importorskip("gdown")
    inspect.signature(gdown.download).bind(**drive.calls[0])
    assert issubclass(gdown.FileURLRetrievalError, gdown.DownloadError)


def test_what_drive_refuses_is_one_line(drive, tmp_path, monkeypatch):
    drive.error = drive.DownloadError("Cannot retrieve the public link.\n\tToo many accesses.")
    with pytest.raises(
        FetchError, match=r"^Google Drive: DownloadError: Cannot .* Too many access"
    ):
        fetch.from_drive("id", tmp_path / "a.bin")
    drive.error = ConnectionError("no route")
    with pytest.raises(FetchError, match=r"^Google Drive: ConnectionError: no route$"):
        fetch.from_drive("id", tmp_path / "a.bin")
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(
        FetchError, match=r"gdown is not installed; run pip install 'gdown>=6\.3,<7'"
    ):
        fetch.from_drive("id", tmp_path / "a.bin")


def test_data_set_arrives_with_its_revision_and_is_not_fetched_twice(server, tmp_path):
    assert fetch.data_set_from_hub("owner/set", tmp_path) == REVISION
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert (tmp_path / "sub/b.bin").read_bytes() == CONTENT[::-1]
    count = len(server.offsets)
    (tmp_path / "sub/b.bin").unlink()
    fetch.data_set_from_hub("owner/set", tmp_path)
    assert (tmp_path / "sub/b.bin").is_file()
    assert len(server.offsets) == count + 1


def good(path: Path) -> str:
    if path.read_bytes() != CONTENT:
        raise FetchError("not the one")
    return "checked"


def write(content: bytes):
    return lambda path: path.write_bytes(content)


def fail(path: Path) -> None:
    raise FetchError("no server")


def test_first_good_source_is_taken(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(FetchError, match=r"^no server; not the one$"):
        fetch.fetch_checked([fail, write(b"bad")], target, good)
    assert target.read_bytes() == b"old"
    sources = [fail, write(b"bad"), write(CONTENT), fail]
    assert fetch.fetch_checked(sources, target, good) == "checked"
    assert target.read_bytes() == CONTENT
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != target]


def test_two_fetches_at_once_do_not_mix(tmp_path):
    (tmp_path / ".download/a").mkdir(parents=True)
    with (
        FileLock(tmp_path / ".download/a/.lock"),
        pytest.raises(FetchError, match=r"another process is fetching into .*\.download/a$"),
    ):
        fetch.fetch_checked([write(CONTENT)], tmp_path / "a.bin", good)
    fetch.fetch_checked([write(CONTENT)], tmp_path / "a.bin", good)


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path, monkeypatch):
    def old(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", old)
    with pytest.raises(FetchError, match=r"\.download/a: NotImplementedError: FileSystem does not"):
        fetch.fetch_checked([write(CONTENT)], tmp_path / "a.bin", good)
