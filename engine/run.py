"""One run of the command line: listed videos through the engine into a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmux.workers.results import RunFolder
from clipmux.workers.sources import Listing
from clipmux.workers.stored import is_stored, stored_folder

from .config import EngineConfig
from .errors import ClipmuxError
from .inference_elsewhere import kind_of_run
from .logs import log_supervisor
from .model import ModelFolder, read_model
from .observer import Observer
from .prediction import Prediction
from .processes import Interrupted
from .progress import ProgressLine, say
from .stages import Stages
from .summary import summarise, summary_table
from .supervisor import Supervisor

log = logging.getLogger("clipmux")

SHOWN_FAILURES = 10

CLASSIFIED, SOME_FAILED = 0, 3


def run_videos(
    listing: Listing,
    config: EngineConfig,
    *,
    output: str | Path,
    resume: bool,
    console: Console,
    on_prediction: Callable[[Prediction], None] = lambda _: None,
    observer: Observer | None = None,
    kind: Callable[..., Any] | None = None,
) -> int:
    """Classify listed videos into the run folder ``output`` and return the exit status: 0, or 3 if some videos failed.

    Args:
        listing: the videos, and what was left out.
        config: how.
        output: the run folder, also one of an object store by its URL; must be empty, or hold the same run if
            ``resume``.
        resume: leave out what has an outcome there.
        console: where progress and the summary go.
        on_prediction: called with each outcome of this call.
        observer: is told what goes on.
        kind: what runs them, in place of ``Supervisor``: something that is made and used as that is.

    Raises:
        UsageError: nothing was started.
        Interrupted: SIGINT or SIGTERM came; finished videos are kept.
        ClipmuxError: the run itself failed.
    """
    model = read_model(config.model)
    observer = observer or Observer()
    with (
        run_folder(output, decides=_decides(config, model), resume=resume) as folder,
        log_supervisor(folder.log, form=observer.log_format),
    ):
        before = folder.outcomes() if resume else {}
        todo = [video for video in listing.videos if video.video_id not in before]
        resumed = len(listing.videos) - len(todo)
        config = dataclasses.replace(config.for_videos(len(todo), model), remote=any(video.url for video in todo))
        kind = kind or kind_of_run(config)
        supervisor: Supervisor = kind(config, model, run_folder=folder.path, log_file=folder.log, observer=observer)
        _say_what_is_done(listing, resumed, folder.shown, console)
        if observer.shown_at:
            log.info("metrics and health are shown at %s", observer.shown_at)
            say(console, f"{observer.shown_at}/metrics and /healthz show how it goes")
        if config.far_decoders:
            say(console, f"decoders of other hosts join with: clipmux decode --connect {config.bind}")
        if config.inference_at:
            say(console, f"inference joins with: clipmux serve-inference --connect {config.inference_at}")
        start = time.monotonic()
        try:
            with _interrupts(supervisor), ProgressLine(console, len(todo)) as line:

                def tick(progress: Any) -> None:
                    folder.check()
                    line.show(progress)

                supervisor.start()
                log.info("inference: %s", supervisor.about.get("chosen", ""))
                for prediction in supervisor.outcomes(todo, on_tick=tick):
                    on_prediction(prediction)
                figures = [*supervisor.stop(), ("supervisor", Stages().figures())]
        except ClipmuxError as error:
            log.error("%s", error)  # noqa: TRY400  (the sentence says it; a traceback would say less)
            if isinstance(error, Interrupted):
                done = supervisor.progress.done
                raise Interrupted(
                    f"interrupted with {done} of {len(todo)} videos done, all kept in '{folder.shown}': "
                    "give the same command with --resume to finish the rest"
                ) from None
            if folder.fresh and error.exit_status == 2:
                supervisor.kill()
                observer.discard()
                folder.discard()
            raise
        finally:
            supervisor.stop()
        wall = time.monotonic() - start
        folder.write_results(video.video_id for video in listing.videos)
        progress = supervisor.progress
        failed_before = sum(not good for good in before.values())
        summary = summarise(
            figures,
            videos=progress.done,
            failed=progress.failed,
            skipped=len(listing.skipped),
            resumed=resumed,
            restarts=progress.restarts,
            wall_s=wall,
        )
        folder.write_summary({**summary, "inference": supervisor.about})
        log.info("done: %d videos, %d failed", progress.done, progress.failed)
    console.print(summary_table(summary))
    say(console, f"results are in {folder.shown}")
    return SOME_FAILED if progress.failed or failed_before else CLASSIFIED


@contextlib.contextmanager
def run_folder(output: str | Path, *, decides: dict[str, Any], resume: bool) -> Iterator[RunFolder]:
    """The run folder, for this run alone.

    Raises:
        UsageError: see ``RunFolder`` and ``stored_folder``.
        ClipmuxError: the last of it could not be put into its store.
    """
    if is_stored(str(output)):
        with stored_folder(str(output), decides=decides, resume=resume) as folder:
            yield folder
    else:
        with RunFolder.held(Path(output), decides=decides, resume=resume) as folder:
            yield folder


def show_failures(failures: list[Prediction], console: Console) -> None:
    """The first few failures, a line each."""
    for failure in failures[:SHOWN_FAILURES]:
        if failure.error is not None:
            say(console, f"failed at {failure.error.stage}: {failure.error.message}")
    if len(failures) > SHOWN_FAILURES:
        console.print(f"… and {len(failures) - SHOWN_FAILURES} more in failures.jsonl", highlight=False)


def _decides(config: EngineConfig, model: ModelFolder) -> dict[str, Any]:
    """Everything that results depend on; worker and batch counts change nothing."""
    return {
        "model": model.name,
        "model_sha256": model.sha256,
        "stride": config.stride,
        "top_k": config.top_k,
        "per_clip": config.per_clip,
        "backend": config.backend_for(model),
        "precision": model.precision,
        "device": config.kind_of_device,
        "preprocess": config.preprocess,
        "segments": _decides_segments(config),
        "wire": config.wire,
    }


def _decides_segments(config: EngineConfig) -> dict[str, Any] | None:
    if not config.segments:
        return None
    return {name: getattr(config, name) for name in ("enter", "leave", "min_duration_s", "smooth", "frame_rate")}


def _say_what_is_done(listing: Listing, resumed: int, output: str, console: Console) -> None:
    for name, reason in listing.skipped:
        log.info("skipped %s: %s", name, reason)
    if listing.skipped:
        name, reason = listing.skipped[0]
        more = f" and {len(listing.skipped) - 1} more, see run.log" if len(listing.skipped) > 1 else ""
        say(console, f"skipped '{name}' ({reason}){more}")
    if resumed:
        say(console, f"{resumed} of {len(listing.videos)} videos are done in '{output}' already")


@contextlib.contextmanager
def _interrupts(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the run in order; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:  # noqa: ARG001
        if supervisor.interrupted:
            raise KeyboardInterrupt
        supervisor.interrupt()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
