from typing import Any

from .taps import Taps

def plan(
    bits: int,
    across: int,
    down: int,
    halved: int,
    chroma_height: int,
    chroma_width: int,
    rows: Taps,
    columns: Taps,
    colour: tuple[int, int, int, int, int, int],
    for_all: bool = ...,
) -> object: ...
def pixels(plan: object, out: Any, y: Any, y_line: int, u: Any, u_line: int, v: Any, v_line: int) -> None: ...
