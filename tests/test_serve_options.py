"""The service without a request: old reports, wrong flags, a missing package."""

import os
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from human_anomaly import serve
from human_anomaly.models.serving.reports import Reports
from human_anomaly.utils import UsageError


def test_old_and_large_reports_go(tmp_path):
    reports = Reports(tmp_path / "reports", seconds=100, most=250)
    names = []
    for number in range(4):
        page = tmp_path / f"page{number}"
        page.mkdir()
        (page / "index.html").write_bytes(b"x" * 100)
        names.append(reports.publish(page))
        os.utime(reports.folder / names[-1], (time.time() - 90 + 10 * number,) * 2)
    assert len(set(names)) == 4
    assert [(reports.folder / name).is_dir() for name in names] == [False, False, True, True]
    os.utime(reports.folder / names[2], (time.time() - 101,) * 2)
    reports.tidy()
    assert [(reports.folder / name).is_dir() for name in names] == [False, False, False, True]


def test_a_token_is_needed_beyond_this_machine(tmp_path):
    with pytest.raises(UsageError, match=r"--host 0\.0\.0\.0: other machines may .*--token"):
        serve.main(["--host", "0.0.0.0"])
    with pytest.raises(UsageError, match="--host my-machine"):
        serve.main(["--host", "my-machine"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(UsageError, match=f"--port {port}: cannot listen at 127.0.0.1: Address"):
            serve.main(["--port", port])


def test_without_the_extra_one_line_says_what_to_install(tmp_path):
    hide = "import sys; sys.modules['uvicorn'] = None\n"
    code = hide + "from human_anomaly.serve import main, run_main\nrun_main(lambda: main([]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    words = "error: uvicorn is missing: pip install fastapi uvicorn python-multipart\n"
    assert done.stderr == words
