"""What is answered to whoever may ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from importlib import resources

from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import JSONResponse, Response

from .board import SLOW_S, Board, news_of
from .guard import Receive, Scope, Send
from .schema import Events, Snapshot

log = logging.getLogger(__name__)

CLIENTS_MOST = 32
"""Pages that are shown at once; another is asked to come back later."""
SINCE = (
    "Only events whose `id` is above this. All events if no `id` is as high: "
    "clipmux has begun anew since, after the clock was set back."
)
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def make_app(board: Board) -> FastAPI:
    """The page, its files and its API."""
    app = FastAPI(title="clipmux live", description="What happens on camera streams.", docs_url=None, redoc_url=None)

    def add_file(path: str, name: str, kind: str) -> None:
        content = resources.files(__package__).joinpath(name).read_bytes()

        async def file() -> Response:
            return Response(content, media_type=kind)

        app.add_api_route(path, file, include_in_schema=False)

    for path, (name, kind) in FILES.items():
        add_file(path, name, kind)

    @app.get("/api/streams", responses={200: {"model": Snapshot}}, response_class=Response)
    async def streams() -> Response:
        """All streams as they are now, and the totals."""
        return Response(board.snapshot, media_type="application/json")

    @app.get("/api/events", responses={200: {"model": Events}}, response_class=Response)
    async def events(since: int = Query(0, ge=0, description=SINCE)) -> Response:
        """The latest events, oldest first; ask with the last `id` for those that came after it."""
        return JSONResponse({"events": board.events_after(since)})

    @app.get("/api/streams/{name:path}/thumbnail.jpg", response_class=Response)
    async def thumbnail(name: str) -> Response:
        """What a stream looks like, a JPEG about a second old; 204 while there is none."""
        if name not in board.names:
            raise HTTPException(404, "there is no stream of this name")
        jpeg = board.thumbnails.get(name)
        return Response(status_code=204) if jpeg is None else Response(jpeg, media_type="image/jpeg")

    @app.get("/api/feed", response_class=Response)
    async def feed() -> Response:
        """Server-sent events.

        `snapshot` (as `/api/streams`) up to four times a second, `happened` (an event), `history` every two seconds
        (by stream, its timeline: seconds since 1970 ÷ 2, leading label, smoothed score).
        """
        if board.listeners >= CLIENTS_MOST:
            raise HTTPException(503, f"{CLIENTS_MOST} pages are shown already: close one")
        return FeedResponse(board)

    return app


class FeedResponse(Response):
    """Sends news until its client goes, or takes none for ``SLOW_S``; holds nothing back for a slow one."""

    def __init__(self, board: Board) -> None:
        super().__init__(media_type="text/event-stream")
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI)
        headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with contextlib.aclosing(news_of(self._board, gone)) as parts:
                async for part in parts:
                    body = {"type": "http.response.body", "body": part, "more_body": True}
                    await asyncio.wait_for(send(body), SLOW_S)
            await send({"type": "http.response.body", "body": b""})
        except asyncio.TimeoutError:
            log.info("a page that took nothing for %g s was cut off", SLOW_S)
        finally:
            gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
