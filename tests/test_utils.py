"""JSON lines of any kind, and what a terminal is shown."""

import logging
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from human_anomaly.data.dataset import read_manifest
from human_anomaly.utils import (
    UsageError,
    parse_csv,
    plain,
    read_jsonl,
    setup_logging,
    write_jsonl,
)


def test_a_line_ends_at_its_newline_alone(tmp_path):
    rows = [["a\u2028b\u0085c\x0b.jpg", 1], ["d\r.jpg", 0]]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert read_jsonl(tmp_path / "a.jsonl") == rows


BAD_ROWS = [
    ("[" * 100_000, "2: not JSON: maximum recursion"),
    ('["a.jpg", ' + "1" * 5000 + "]", "2: not JSON: Exceeds the limit"),
    ('["a.jpg", 1e999]', "2: label: expected 0, 1 or null, got Infinity"),
    ('["a.jpg", NaN]', "2: label: expected 0, 1 or null, got NaN"),
    ('["\\ud800.jpg", 1]', "2: expected the name of a file"),
    ('["a\\u0000.jpg", 1]', "2: expected the name of a file"),
    ('{"a": 1}', "2: expected .*name.jpg"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_a_bad_row_is_one_line_with_file_and_number(tmp_path, row, message):
    (tmp_path / "hand.jsonl").write_text(f'["a.jpg", 0]\n{row}\n')
    with pytest.raises(UsageError, match=rf"hand\.jsonl:{message}") as caught:
        read_manifest(tmp_path / "hand.jsonl")
    assert "\n" not in str(caught.value)


def test_control_characters_are_shown_escaped(capsys):
    assert plain("a\x1b[31m\u202eb é") == "a\\x1b[31m\\u202eb é"
    setup_logging()
    logging.getLogger("x").warning("bad\x1b[2J name")
    assert "bad\\x1b[2J name" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_status_130():
    main = "lambda: (print(1, flush=True), time.sleep(60))"
    code = f"import time; from human_anomaly.utils import run_main; run_main({main})"
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Tests that run in the background inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    run.stdout.readline()
    os.kill(run.pid, signal.SIGINT)
    err = run.communicate()[1].decode().strip()
    assert (run.returncode, err) == (130, "interrupted; run the same command to resume")


def test_a_process_whose_torchrun_is_gone_ends():
    """It slept for a year in the rendezvous; port 1 is one at which nobody answers."""
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    code = (
        "import datetime; from human_anomaly import utils\n"
        "utils.TO_MEET = datetime.timedelta(seconds=1)\n"
        "utils.run_main(utils.process_group().__enter__)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **place, "TORCHELASTIC_USE_AGENT_STORE": "True"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "error: several processes: they do not find each other" in ended.stderr


@pytest.mark.parametrize("missing", ["libGL.so.1", "libgthread-2.0.so.0"])
def test_opencv_without_its_libraries_is_one_line(tmp_path, missing):
    text = f"{missing}: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({text!r}, name='cv2')")
    words = [sys.executable, "inference.py", "--video", "demo/videos", "--output", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert line.startswith(f"error: OpenCV: {missing}: cannot open")
    assert "apt-get install libgl1" in line and "opencv-python-headless" in line


def ended(main: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the function that the text `main` describes as a script does."""
    code = f"from human_anomaly.utils import *; run_main({main})"
    words, environment = [sys.executable, "-c", code], os.environ | environment
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_an_error_that_nobody_expected_is_one_line_too():
    """Libraries raise kinds that they do not document."""
    done = ended("lambda: int('two\\n' + 'lines')")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: ValueError: invalid literal for int() with base 10: 'two\\nlines' "
        "(HUMAN_ANOMALY_DEBUG=1 shows where)\n"
    )
    done = ended("lambda: int('two')", HUMAN_ANOMALY_DEBUG="1")
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ValueError: ")


def test_what_a_terminal_cannot_show_is_printed_escaped():
    done = ended("lambda: print('\u00e9 \U0001f642')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xe9 \\U0001f642\n", "")


def test_csv_with_an_open_quote_is_one_line_that_says_where_it_begins():
    rows = "".join(f"a{number}.jpg,1\n" for number in range(3000))
    assert len(list(parse_csv(rows, "labels.csv"))) == 3000
    for broken in (rows.replace("a41.", '"a41.'), rows.replace("a2999.", '"a2999.')):
        line = 42 if '"a41' in broken else 3000
        with pytest.raises(UsageError, match=rf"^labels\.csv:{line}: .*a quote not closed\?$"):
            list(parse_csv(broken, "labels.csv"))
    quoted = 'file,label\n"a, b.jpg",1\n"two\nlines.jpg",0\n'
    assert [cells for _, cells in parse_csv(quoted, "x")][1:] == [
        ["a, b.jpg", "1"],
        ["two\nlines.jpg", "0"],
    ]
