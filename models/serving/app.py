"""The service's pages and answers, by FastAPI."""

import asyncio
import hmac
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from human_anomaly.models.report.page import TEMPLATES, environment
from human_anomaly.models.serving.bodies import read_tasks
from human_anomaly.models.serving.line import Line, Refused, Task

RETRY_SECONDS = 2
STEP = 0.3  # seconds between two looks at whether the client is still there
DRAIN = 2  # seconds to go on reading a refused body: a client that still sends sees no answer


@dataclass
class Service:
    """What the answers need.

    `folder` holds uploads while they are scored. `about` is part of the answer of /health.
    """

    line: Line
    folder: Path
    token: str | None
    about: dict

    def check_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.token and not hmac.compare_digest(given.encode(), self.token.encode()):
            raise Refused(401, "wrong or missing token: send 'Authorization: Bearer TOKEN'")

    def health(self, request: Request) -> dict:
        """Answer whether the service takes work; with the right token, also what it runs."""
        answer = {"ready": not self.line.closing}
        with suppress(Refused):
            self.check_token(request)
            answer |= self.about | {"queue": self.line.taken, "limits": vars(self.line.limits)}
        return answer

    async def score(self, request: Request) -> JSONResponse:
        """Answer with a row per clip or video, in their order, and Flow-Factory's rewards."""
        with ExitStack() as held:
            tasks = await self._read(request, held)
            for task in tasks:
                task.want_frames = request.query_params.get("frames") in ("1", "true")
            async for _ in self._work_on(tasks, request):
                pass
            rows = [task.future.result() for task in tasks]
        if all("error" in row for row in rows):
            raise Refused(422, rows[0]["error"])
        rewards = [row["score_soft"] if row.get("per_person") else 0.0 for row in rows]
        return JSONResponse({"version": 1, "videos": rows, "rewards": rewards})

    async def report(self, request: Request) -> StreamingResponse:
        """Answer with JSON lines while a video is scored; the last is its row, with "page"."""
        with ExitStack() as held:
            tasks = await self._read(request, held)
            if len(tasks) != 1 or tasks[0].path is None:
                raise Refused(422, "expected one video for a report")
            tasks[0].want_report = True
            return _Held(self._progress(tasks, request), held.pop_all())

    async def _read(self, request: Request, held: ExitStack) -> list[Task]:
        held.enter_context(self.line.place())
        folder = held.enter_context(tempfile.TemporaryDirectory(dir=self.folder))
        return await read_tasks(request, Path(folder), self.line.limits)

    async def _work_on(self, tasks: Sequence[Task], request: Request) -> AsyncIterator[None]:
        """Put the tasks into the line and yield now and then until all are done."""
        clock, limits = asyncio.get_running_loop().time, self.line.limits
        end, waiting = clock() + limits.seconds, {asyncio.wrap_future(t.future) for t in tasks}
        try:
            for task in tasks:
                self.line.add(task)
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=STEP)
                for future in done:
                    future.result()  # raises the task's error
                if waiting and await request.is_disconnected():
                    raise Refused(499, "the client left")
                if waiting and clock() > end:
                    raise Refused(504, f"not scored within {limits.seconds:g} s")
                yield
        finally:
            for task in tasks:
                task.give_up("the client left")

    async def _progress(self, tasks: Sequence[Task], request: Request) -> AsyncIterator[str]:
        (task,) = tasks
        try:
            async for _ in self._work_on(tasks, request):
                shown = {"frames": task.seen, "expected": task.expected}
                yield json.dumps(shown | {"waiting": not task.future.running()}) + "\n"
            yield json.dumps(task.future.result()) + "\n"
        except Refused as error:
            yield json.dumps({"error": error.reason}) + "\n"


class _Held(StreamingResponse):
    """Keeps the request's place and folder until its answer is sent or its client has left."""

    def __init__(self, lines: AsyncIterator[str], held: ExitStack):
        super().__init__(lines, media_type="application/x-ndjson")
        self.held = held

    async def __call__(self, scope, receive, send) -> None:
        with self.held:
            await super().__call__(scope, receive, send)


async def _refuse(request: Request, error: Refused) -> JSONResponse:
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN):
            while not request.scope["ended"] and (await request.receive()).get("more_body"):
                pass
    headers = {"Connection": "close"}
    if error.status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return JSONResponse({"detail": error.reason}, error.status, headers)


class _NoteEnd:
    """Notes in the scope whether the whole body of a request was read."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        ended = scope["ended"] = []

        async def note() -> dict:
            message = await receive()
            if not message.get("more_body"):
                ended.append(True)
            return message

        await self.app(scope, note, send)


def create_app(service: Service) -> FastAPI:
    app = FastAPI(openapi_url=None, exception_handlers={Refused: _refuse})
    checked = {"dependencies": [Depends(service.check_token)]}
    for path in ("/score", "/compute"):  # Flow-Factory posts to the second
        app.post(path, response_model=None, **checked)(service.score)
    app.post("/report", response_model=None, **checked)(service.report)
    app.get("/health", response_model=None)(service.health)
    page = (
        environment()
        .get_template("serve.html")
        .render(
            needs_token=service.token is not None,
            limits=service.line.limits,
            demo=service.about["demo"],
        )
    )
    app.get("/", response_class=HTMLResponse)(lambda: page)
    app.mount("/assets", StaticFiles(directory=TEMPLATES))
    reports = service.line.reports.folder
    app.mount("/reports", StaticFiles(directory=reports, html=True))
    app.add_middleware(_NoteEnd)
    if service.token is None:
        # Another site's page could reach the service by a host name that points to this machine.
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "::1", "[::1]"]
        )
    return app
