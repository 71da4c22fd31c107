"""Classifying inside a Ray Data pipeline (extra ``clipmux[ray]``)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipmux.workers.sources import Video, video_at

from .api import Engine
from .errors import UsageError
from .with_ray import ray

Columns = dict[str, Any]
"""A batch of Ray Data: a list or an array for each column, all of equal length."""


def classify(
    dataset: Any,
    *,
    model: str | os.PathLike[str],
    path: str = "path",
    content: str = "bytes",
    batch_size: int = 64,
    concurrency: int = 1,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    **options: Any,
) -> Any:
    """Add a prediction to every row of a dataset, in a pool of engines that stay for all of it.

    Args:
        dataset: of videos: a column of paths that every node can open, or what ``ray.data.read_binary_files`` gives
            (with ``include_paths=True`` to have names).
        model: a model folder, at the same path on every node, or ``demo``.
        path: the column of paths.
        content: the column of whole files; where it is there, paths are only names.
        batch_size: rows that an engine gets at a time. It works on the next ones when all of these are done: several
            times its decoders keep it busy.
        concurrency: engines; one for each node or device is what they are made for.
        num_cpus: that Ray sets aside for each.
        num_gpus: likewise.
        resources: likewise, for example ``{"MLU": 1}``.
        options: of ``Engine``.

    Returns:
        The dataset with three more columns and without ``content``: ``label`` and ``score``, of the best label, and
        ``prediction``, the line of ``results.jsonl`` or ``failures.jsonl`` as JSON. A video that cannot be classified
        has no ``label`` (empty) and a ``score`` of 0; its ``prediction`` says why.

    Example:
        >>> import ray.data  # doctest: +SKIP
        >>> files = ray.data.read_binary_files("videos/", include_paths=True)  # doctest: +SKIP
        >>> classify(files, model="model").write_parquet("predictions/")  # doctest: +SKIP
    """
    aside = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources}
    return dataset.map_batches(
        _Classify,
        fn_constructor_kwargs={"model": os.fspath(model), "path": path, "content": content, "options": options},
        batch_size=batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=concurrency),
        **{name: value for name, value in aside.items() if value is not None},
    )


class _Classify:
    """An actor of Ray Data."""

    def __init__(self, *, model: str, path: str, content: str, options: dict[str, Any]) -> None:
        self._engine = Engine(model, **options)
        self._path = path
        self._content = content

    def __call__(self, batch: Columns) -> Columns:
        if self._path not in batch and self._content not in batch:
            raise UsageError(f"the dataset has no column '{self._path}' or '{self._content}', but {sorted(batch)}")
        with tempfile.TemporaryDirectory(prefix="clipmux-ray-") as folder:
            videos = list(self._videos(batch, Path(folder)))
            found = {prediction.video_id: prediction for prediction in self._engine.classify(videos)}
        rows = []
        for number, name in enumerate(self._names(batch, len(videos))):
            line = {**found[str(number)].to_json(), "video_id": name, "path": name}
            rows.append((line.get("result") or [{"label": "", "score": 0.0}], json.dumps(line, ensure_ascii=False)))
        others = {column: values for column, values in batch.items() if column != self._content}
        return {
            **others,
            "label": [labels[0]["label"] for labels, _ in rows],
            "score": [labels[0]["score"] for labels, _ in rows],
            "prediction": [line for _, line in rows],
        }

    def _videos(self, batch: Columns, folder: Path) -> Iterator[Video]:
        """By number, since nothing says that names differ."""
        if self._content not in batch:
            for number, path in enumerate(batch[self._path]):
                video = video_at(Path(str(path)))
                yield Video.from_dict({**video.to_dict(), "video_id": str(number)})
            return
        for number, content in enumerate(batch[self._content]):
            file = folder / str(number)
            file.write_bytes(content)
            yield Video(str(number), file, "file")

    def _names(self, batch: Columns, count: int) -> list[str]:
        return [str(name) for name in batch[self._path]] if self._path in batch else [str(row) for row in range(count)]
