"""How a model folder comes into being: all of it or nothing, and never over somebody's other files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clipmux.engine.documents import read_json
from clipmux.engine.errors import UsageError


def check_free(output: Path, *, force: bool) -> None:
    """Whether a model may be written to ``output``: a new or an empty folder, or with ``force`` one that holds a model.

    Raises:
        UsageError: it may not.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"'{output}' is a file: name a folder for the model")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / "model.json").is_file():
        raise UsageError(f"'{output}' holds other files: name a new or an empty folder for the model")
    if not force:
        raise UsageError(f"'{output}' already holds a model: say force to replace it, or name a new folder")


@contextlib.contextmanager
def new_content(output: Path) -> Iterator[Path]:
    """A folder whose files move into ``output`` when all went well; otherwise all that was made vanishes.

    Files of a model that was there before, and that the new one does not replace, are removed.
    """
    made = [path for path in (output, *output.parents) if not path.exists()]
    try:
        try:
            output.mkdir(parents=True, exist_ok=True)
            partial = tempfile.TemporaryDirectory(dir=output, prefix=".staging-")
        except OSError as error:
            raise UsageError(f"cannot write to '{output}' ({error.strerror}): name another folder") from None
        with partial:
            yield Path(partial.name)
            before = _files_of_model(output)
            # The network first: a model.json beside no network is refused, a network beside no model.json is no model.
            new = sorted(Path(partial.name).iterdir(), key=lambda path: path.suffix == ".json")
            for path in new:
                path.replace(output / path.name)
            for name in before - {path.name for path in new}:
                (output / name).unlink(missing_ok=True)
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # someone else's file arrived there meanwhile
                path.rmdir()
        raise


def _files_of_model(folder: Path) -> set[str]:
    """Names of the files that a folder's ``model.json`` speaks of, as far as it can be read."""
    try:
        content = read_json(folder / "model.json")
        named = [content["network"], *content.get("compiled", {}).get("files", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in named if isinstance(name, str) and name and name == os.path.basename(name)}  # noqa: PTH119
