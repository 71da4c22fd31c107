"""The Python face: an engine that classifies videos, in this program, with the processes of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from clipmux.workers.remote import is_remote
from clipmux.workers.sources import Video, list_videos, video_at

from .config import EngineConfig
from .errors import UsageError
from .inference_elsewhere import kind_of_run
from .model import read_model
from .prediction import Prediction
from .supervisor import Supervisor

if TYPE_CHECKING:
    from typing_extensions import Self

    from .streams import StreamConfig


class Engine:
    """Classify videos with a model folder.

    Processes start with the first ``classify`` and stay for the next one; leaving the ``with`` block ends them, and so
    does breaking off a loop over ``classify``.

    Args:
        model: a model folder, or ``"demo"`` for the small one that comes with the package.
        options: the fields of ``EngineConfig`` (``stride``, ``top_k``, ``per_clip``, ``workers``, ``max_batch``,
            ``device``, ``backend`` …).

    Raises:
        UsageError: an option does not hold what it should, or the model folder cannot be used.

    Example:
        >>> with Engine("demo", stride=8) as engine:  # doctest: +SKIP
        ...     for prediction in engine.classify("videos/"):
        ...         print(prediction.video_id, prediction.label, prediction.score)
    """

    def __init__(self, model: str | os.PathLike[str], **options: Any) -> None:
        folder = read_model(model)
        self._config = EngineConfig(model=str(folder.path.resolve()), **options)
        if self._config.segments:
            raise UsageError("segments=True: they are written into a run folder, so use clipmux run --segments")
        self._model = folder
        self._supervisor: Supervisor | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._busy = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def classify(
        self, videos: str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Video]
    ) -> Iterator[Prediction]:
        """Classify videos; yields each one's prediction as it finishes, in no fixed order.

        A video that cannot be classified is yielded too: its ``error`` says why, and its ``label`` raises that.

        Args:
            videos: a file, a folder, a glob, a URL; or any iterable of files and frame folders, which may be endless:
                it is read no faster than videos are decoded. Videos by URL in it need an engine with ``remote=True``,
                whose decoders keep their network.

        Raises:
            UsageError: there are none, or one is a URL and the engine is not ``remote``.
            ClipmuxError: the run itself failed.
        """
        if self._busy:
            raise RuntimeError("this engine is classifying already: finish that loop first, or use a second Engine")
        self._busy = True
        finished = False
        try:
            found = self._found(videos)
            yield from self._start().outcomes(found)
            finished = True
        finally:
            self._busy = False
            if not finished:
                self.close()

    async def watch(
        self, sources: Iterable[str | os.PathLike[str] | StreamConfig], **options: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Watch streams; yields events as they happen, each like a line of ``clipmux live --output``.

        It ends when every stream has ended, which files do and cameras never. Breaking off is orderly once the iterator
        is closed: by ``contextlib.aclosing``, or by cancelling the task. A clip goes to an idle device at once,
        as with ``clipmux live``, whatever this engine's ``max_delay_s``.

        Args:
            sources: URLs, files and devices, or ``StreamConfig`` where one has a name, labels and thresholds.
            options: the fields of ``LiveConfig`` (``max_latency_s``, ``stall_s``, ``output``, ``webhook`` …).

        Raises:
            UsageError: a stream or an option cannot be.
            ClipmuxError: what all streams need has failed.

        Example:
            >>> async def main():  # doctest: +SKIP
            ...     async for event in Engine("model").watch(["rtsp://10.0.0.7/cam"]):
            ...         print(event["stream"], event["event"], event["label"])
        """
        from .awaiting import watch
        from .streams import LiveConfig, StreamConfig, check_streams, streams_of

        streams = [
            source if isinstance(source, StreamConfig) else streams_of([os.fspath(source)])[0] for source in sources
        ]
        options = {"max_streams": max(1, len(streams)), **options}
        live = LiveConfig(model=self._config.model, **options)
        check_streams(streams, self._model.labels, live.max_streams)
        config = dataclasses.replace(self._config, max_delay_s=0.0)
        async with contextlib.aclosing(watch(config, live, self._model, streams)) as events:
            async for event in events:
                yield event

    def close(self) -> None:
        """End all processes. The engine can be used again: they start anew."""
        supervisor, self._supervisor = self._supervisor, None
        scratch, self._scratch = self._scratch, None
        try:
            if supervisor is not None:
                supervisor.stop()
        finally:
            if scratch is not None:
                scratch.cleanup()

    def _found(self, videos: str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Video]) -> Iterator[Video]:
        if not isinstance(videos, str | os.PathLike):
            return _each(videos, remote=self._config.remote)
        found = list_videos([os.fspath(videos)], stdin=None).videos
        if any(video.url for video in found) and not self._config.remote:
            self.close()
            self._config = dataclasses.replace(self._config, remote=True)
        return iter(found)

    def _start(self) -> Supervisor:
        if self._supervisor is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="clipmux-log-")
            log_file = Path(self._scratch.name) / "children.log"
            self._supervisor = kind_of_run(self._config)(self._config, self._model, run_folder=None, log_file=log_file)
            self._supervisor.start()
        return self._supervisor


def _each(videos: Iterable[str | os.PathLike[str] | Video], *, remote: bool) -> Iterator[Video]:
    for given in videos:
        if isinstance(given, str) and is_remote(given):
            found = list_videos([given], stdin=None).videos
        else:
            found = [given if isinstance(given, Video) else video_at(Path(given))]
        for video in found:
            if video.url and not remote:
                raise UsageError(f"'{video.shown}' is a URL: make the engine with remote=True, or give only that")
            yield video
