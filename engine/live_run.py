"""One call of ``clipmux live``: streams are watched until they end or somebody says stop."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.status import Status

from clipmux.workers.event_sinks import Delivery, Ended, Sink

from .config import EngineConfig
from .errors import ClipmuxError, UsageError
from .inference_elsewhere import kind_of_watch
from .live import LiveSupervisor, Stream
from .logs import log_supervisor
from .messages import CONNECTING, ENDED, LIVE, RECONNECTING, STALLED
from .model import read_model
from .observer import Observer
from .processes import Interrupted
from .progress import say
from .streams import LiveConfig, StreamConfig, check_streams, read_streams, streams_of

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("clipmux")

PLAIN_EVERY_S = 10.0
LAST_EVENTS_S, AT_ONCE_S = 2.0, 0.2
"""At the end, how long standard output may take for what waits for it; and when the end is to be at once."""
OF_SHOWN = (LIVE, CONNECTING, RECONNECTING, STALLED, ENDED)


def watch_streams(
    sources: Sequence[str],
    streams_file: Path | None,
    config: EngineConfig,
    live: LiveConfig,
    *,
    http: dict[str, Any] | None,
    log_file: Path | None,
    console: Console,
    observer: Observer,
) -> int:
    """Watch streams until all have ended, or SIGINT or SIGTERM comes; SIGHUP has the streams file read again.

    Args:
        sources: URLs, files and devices.
        streams_file: TOML with more streams.
        config: of the engine.
        live: how streams are watched.
        http: where the page is; None for none.
        log_file: where to log; else a temporary file, which only a failure leaves behind.
        observer: is told what goes on.
        console: where to say how things are. Events go to standard output, unless ``live`` names a file for them.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: what was asked for cannot be done.
        ClipmuxError: a process that all streams need has died, or standard output cannot be written.
        BrokenPipeError: nobody reads standard output any more.
    """
    model = read_model(config.model)

    def listed() -> list[StreamConfig]:
        streams = [*streams_of(sources), *(read_streams(streams_file) if streams_file else [])]
        check_streams(streams, model.labels, live.max_streams)
        return streams

    streams = listed()
    _warn_of_secrets(sources, console)
    with _log_at(log_file, observer.log_format) as log_path:
        kind = kind_of_watch(config)
        supervisor = kind(config, live, model, streams, log_file=log_path, http=http, observer=observer)
        if config.inference_at:
            say(console, f"inference joins with: clipmux serve-inference --connect {config.inference_at}")
        if observer.shown_at:
            log.info("metrics and health are shown at %s", observer.shown_at)
            say(console, f"{observer.shown_at}/metrics and /healthz show how it goes")
        signals = _Signals(supervisor)
        with (
            signals,
            _StatusLine(console, supervisor) as line,
            _Told(None if live.output else sys.stdout, say=line.say) as told,
        ):
            try:
                with contextlib.suppress(Interrupted):
                    supervisor.start()
                    line.say_where(supervisor)
                    for event in supervisor.watch(on_tick=lambda: _tick(signals, supervisor, listed, line, told)):
                        told.tell(event)
            finally:
                for role, figures in supervisor.stop():
                    log.info("figures: %s", json.dumps({"role": role, **figures}))
            for event in supervisor.take_events():
                told.tell(event)
    return 0


def parse_http(text: str, token: str | None) -> dict[str, Any]:
    """``127.0.0.1:8080`` as the page's settings.

    Raises:
        UsageError: it is no address.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.path or parts.username is not None:
        raise UsageError(f"--http is '{text}': give an address and a port, like 127.0.0.1:8080")
    return {"host": host, "port": port, "token": token}


def _tick(signals: _Signals, supervisor: LiveSupervisor, listed: Any, line: _StatusLine, told: _Told) -> None:
    told.check()
    if signals.take_hangup():
        try:
            supervisor.reload(listed())
        except UsageError as error:
            line.say(f"the streams stay as they were: {error}")
    line.show()


class _Told:
    """Events on their way to standard output, by a thread of its own: a reader that pauses holds up nothing.

    Args:
        file: standard output; None where nobody is told.
        say: says to the user what could not be told.
    """

    def __init__(self, file: IO[Any] | None, *, say: Callable[[str], None]) -> None:
        self._sink = None if file is None else Sink(_StandardOutput(file))
        self._say = say

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """What waits is written, for a bounded time; who interrupts twice does not wait for it."""
        if self._sink is None:
            return
        left = self._sink.close(AT_ONCE_S if kind is KeyboardInterrupt else LAST_EVENTS_S)
        if kind is None:
            self.check()
        if (lost := left + self._sink.dropped) and self._sink.ended is None:
            self._say(f"standard output did not take {lost} events: its reader paused for too long")

    def tell(self, event: dict[str, Any]) -> None:
        """A line, soon, and as UTF-8, whatever the file's encoding is; never waits."""
        if self._sink is not None:
            self._sink.put(json.dumps(event, ensure_ascii=False).encode())

    def check(self) -> None:
        """See whether lines can still be written.

        Raises:
            BrokenPipeError: nobody reads them any more.
            ClipmuxError: they cannot be written.
        """
        if self._sink is None or self._sink.ended is None:
            return
        error = self._sink.ended.__cause__
        if isinstance(error, BrokenPipeError):
            raise error
        raise ClipmuxError(str(self._sink.ended))


class _StandardOutput(Delivery):
    """Writes to the file itself: what a buffer cannot get rid of, it would try to write again at exit."""

    name = "standard output"

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def deliver(self, lines: list[bytes]) -> None:
        try:
            for line in lines:
                rest = line + b"\n"
                while rest:
                    rest = self._write(rest)
        except OSError as error:
            raise Ended(
                f"events cannot be written to standard output ({error.strerror}): "
                "give a file that has room with --output"
            ) from error

    def _write(self, line: bytes) -> bytes:
        """Write what there is room for; returns the rest."""
        try:
            return line[os.write(self._file.fileno(), line) :]
        except BlockingIOError:  # whoever shares it has set it so: a full pipe is no reason to end
            select.select([], [self._file], [])
            return line

    def close(self) -> None:
        pass


def _warn_of_secrets(sources: Sequence[str], console: Console) -> None:
    for stream in streams_of(sources):
        if stream.shown != stream.url:
            console.print(
                f"warning: everybody on this machine can read the credentials of '{stream.shown}' on the command line: "
                "put it into a --streams file",
                style="yellow",
                highlight=False,
                markup=False,
                emoji=False,
                soft_wrap=True,
            )


class _Signals:
    """SIGINT and SIGTERM stop in order, a second one at once; SIGHUP is kept until it is asked for."""

    def __init__(self, supervisor: LiveSupervisor) -> None:
        self._supervisor = supervisor
        self._hangup = False

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._heard) for number in numbers}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # see live_cli.py
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take_hangup(self) -> bool:
        hangup, self._hangup = self._hangup, False
        return hangup

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGHUP:
            self._hangup = True
        elif self._supervisor.interrupted:
            raise KeyboardInterrupt
        else:
            self._supervisor.interrupt()


class _StatusLine:
    """How things are: a line that renews itself in a terminal, plain lines elsewhere, and every change of a stream."""

    def __init__(self, console: Console, supervisor: LiveSupervisor) -> None:
        self._console = console
        self._supervisor = supervisor
        self._states: dict[int, str] = {}
        self._plain_at = time.monotonic()
        self._status: Status | None = console.status("starting") if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        log.info("%s", text)
        say(self._console, text)

    def say_where(self, supervisor: LiveSupervisor) -> None:
        """What was chosen, and where the page is."""
        self.say(f"inference: {supervisor.about.get('chosen', '')}")
        if supervisor.page:
            self.say(f"page: {supervisor.page}")

    def show(self) -> None:
        """Draw anew; may be called as often as one likes."""
        for stream in self._supervisor.streams.values():
            if self._states.get(stream.number) != stream.state:
                self._states[stream.number] = stream.state
                self.say(_changed(stream))
        totals = self._supervisor.totals
        if not totals:
            return
        states = [f"{totals[state]} {state}" for state in OF_SHOWN if totals.get(state)]
        text = " · ".join(
            [
                *states,
                f"{totals['clips_per_s']:.1f} clips/s",
                f"batches {totals['batch_fill']:.0%} full",
                f"device {totals['device_busy']:.0%} busy",
                *([f"{totals['dropped']} dropped"] if totals["dropped"] else []),
            ]
        )
        now = time.monotonic()
        if self._status is not None:
            self._status.update(text)
        elif now - self._plain_at >= PLAIN_EVERY_S:
            self._plain_at = now
            self._console.print(text, highlight=False, soft_wrap=True)


def _changed(stream: Stream) -> str:
    return f"{stream.config.name}: {stream.state}" + (f" ({stream.detail})" if stream.detail else "")


@contextlib.contextmanager
def _log_at(path: Path | None, form: str) -> Iterator[Path]:
    """The log; a temporary one goes when all was well, or when nothing was begun."""
    if path is None:
        try:
            folder = tempfile.mkdtemp(prefix="clipmux-live-")
        except OSError as error:
            raise UsageError(
                f"no folder for a temporary log can be made ({error.strerror}): let TMPDIR name one, or give --log"
            ) from None
        temporary = Path(folder) / "live.log"
        try:
            with log_supervisor(temporary, form=form):
                yield temporary
        except UsageError:
            _discard(temporary)
            raise
        _discard(temporary)
    else:
        try:
            path.open("ab").close()
        except OSError as error:
            raise UsageError(f"--log '{path}' cannot be written ({error.strerror}): give another file") from None
        with log_supervisor(path, form=form):
            yield path


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):  # whoever tidies up temporary files was there first, perhaps
        path.unlink()
        path.parent.rmdir()
