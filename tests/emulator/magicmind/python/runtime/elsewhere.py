"""Computing in another interpreter, for one that has no torch: both ends, and what passes between them.

A frame is the length of a header, the header (JSON, with the types and shapes of arrays) and the arrays' bytes. The
other interpreter says an empty frame once it is ready; then one answer follows one request.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from .program import Array, Program, Shape

EMULATOR = Path(__file__).resolve().parents[3]
"""The folder that ``magicmind`` is imported from."""


class Elsewhere:
    """A program made ready to run in another interpreter, one call at a time; otherwise as ``Executable``.

    Args:
        program: what runs.
        path: the file that it was read from.
        python: the interpreter.

    Raises:
        OSError: that interpreter does not run it; it has said why on stderr.
    """

    def __init__(self, program: Program, path: str, python: str) -> None:
        self.program = program
        self._shapes: dict[tuple[Shape, ...], list[Shape]] = {}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [python, "-m", "magicmind.python.runtime.elsewhere", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Whatever else is on our path is for our Python.
            env={**os.environ, "PYTHONPATH": str(EMULATOR)},
        )
        weakref.finalize(self, _end, self._process)
        self._answer()

    def shapes(self, shapes: tuple[Shape, ...]) -> list[Shape]:
        """Declared shapes of the outputs for those of the inputs.

        Raises:
            RuntimeError: they do not fit the graph.
            OSError: the other interpreter has ended.
        """
        if shapes not in self._shapes:  # asked once: the answer would wait for what is being computed
            found = self._ask({"call": "shapes", "shapes": shapes})[0]["shapes"]
            self._shapes[shapes] = [tuple(shape) for shape in found]
        return self._shapes[shapes]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Outputs for inputs, both as declared.

        Raises:
            RuntimeError: computing failed.
            OSError: the other interpreter has ended.
        """
        return self._ask({"call": "run"}, arrays)[1]

    def _ask(self, header: dict[str, Any], arrays: Sequence[Array] = ()) -> tuple[dict[str, Any], list[Array]]:
        assert self._process.stdin is not None
        with self._lock:
            _send(self._process.stdin, header, arrays)
            answer, results = self._answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer, results

    def _answer(self) -> tuple[dict[str, Any], list[Array]]:
        assert self._process.stdout is not None
        try:
            return _receive(self._process.stdout)
        except EOFError:
            raise OSError("the interpreter of MAGICMIND_EMULATOR_PYTHON has ended") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # nobody waits for what it may be computing
    with contextlib.suppress(OSError), process:  # part of a request may be left
        pass


def _send(stream: IO[bytes], header: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
    content = json.dumps({**header, "arrays": [(array.dtype.str, array.shape) for array in arrays]}).encode()
    stream.write(len(content).to_bytes(4, "little") + content)
    for array in arrays:
        stream.write(array.tobytes())
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[Array]]:
    header = json.loads(_exactly(stream, int.from_bytes(_exactly(stream, 4), "little")))
    arrays = []
    for name, shape in header["arrays"]:
        dtype = np.dtype(name)
        arrays.append(np.frombuffer(_exactly(stream, dtype.itemsize * math.prod(shape)), dtype).reshape(shape))
    return header, arrays


def _exactly(stream: IO[bytes], length: int) -> bytearray:
    """
    Raises:
        EOFError: the stream has ended.
    """
    content = bytearray(stream.read(length))  # arrays of it may be written to
    if len(content) < length:
        raise EOFError
    return content


def serve(path: str, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer for the model in a file until the requests end."""
    from .executable import Executable

    executable = Executable(Program.read(path))
    _send(answers, {})
    with contextlib.suppress(EOFError, BrokenPipeError):  # whoever asked is gone
        while True:
            header, arrays = _receive(requests)
            answer: dict[str, Any] = {}
            results: list[Array] = []
            try:
                if header["call"] == "shapes":
                    answer["shapes"] = executable.shapes(tuple(map(tuple, header["shapes"])))
                else:
                    results = executable.run(arrays)
            except Exception as error:  # torch raises many kinds
                answer["error"] = str(error) or type(error).__name__
            _send(answers, answer, results)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: whoever asks decides when this ends
    # What libraries print must not come between the answers.
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.argv[1], sys.stdin.buffer, own)
