"""Asks serve.py for scores; needs only numpy and the standard library."""

import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, InvalidURL
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from human_anomaly.data.clips import as_bytes
from human_anomaly.utils import one_line

WAITS = (1, 2, 4, 8, 15, 30, 30, 30, 60, 60)  # seconds between tries
AT_ONCE = 8  # requests, so that the service can score clips together
REFUSED = (400, 408, 413, 415, 422)  # status: the clip is refused, not the client


class Client:
    """Returns a row per clip or file; the row of a refused one holds only "error".

    Raises ConnectionError if the service cannot be reached or wants another token.
    """

    def __init__(self, url: str, token: str | None):
        self.url, token = url.rstrip("/"), token or os.environ.get("HUMAN_ANOMALY_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        is_here = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
        proxies = [urllib.request.ProxyHandler({})] if is_here else []
        self.open = urllib.request.build_opener(*proxies).open

    def clips(self, clips: list) -> list[dict]:
        return self._map(self._clip, clips)

    def files(self, paths: Sequence[str]) -> list[dict]:
        return self._map(self._file, paths)

    @staticmethod
    def _map(function: Callable, items: Sequence) -> list[dict]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(function, items))

    def _clip(self, clip) -> dict:
        body = io.BytesIO()
        try:
            np.save(body, as_bytes(clip), allow_pickle=False)
        except ValueError as error:
            return {"error": str(error)}
        return self._post(body.getbuffer(), "application/x-npy")

    def _file(self, path: str) -> dict:
        try:
            return self._post(Path(path).read_bytes(), "application/octet-stream")
        except FileNotFoundError:
            return {"error": "no such file"}

    def _post(self, body, kind: str) -> dict:
        headers = self.headers | {"Content-Type": kind}
        request = urllib.request.Request(f"{self.url}/score", body, headers)
        for wait in (*WAITS, None):
            try:
                with self.open(request, timeout=3600) as answer:
                    return json.load(answer)["videos"][0]
            except urllib.error.HTTPError as error:
                problem = _sentence(error)
                if error.code in REFUSED:
                    return {"error": problem}
                if error.code != 503:
                    break
                asked = error.headers.get("Retry-After", "")  # seconds, or a date
                wait = wait and max(1, int(asked) if asked.isdecimal() else wait)
            except (ValueError, LookupError, TypeError, InvalidURL) as error:
                problem = f"expected serve.py to answer there ({one_line(error)})"
                break
            except (OSError, HTTPException) as error:  # the service may be restarting
                problem = one_line(error)
            if wait:
                time.sleep(wait)
        raise ConnectionError(f"{self.url}: {problem}")


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
