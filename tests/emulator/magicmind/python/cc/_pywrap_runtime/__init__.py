"""The names that public code imports from the compiled part [V]: ``ITensor`` and ``enums.DataType``."""

from . import enums
from .dims import Dims
from .status import Status
from .tensor import ITensor

__all__ = ["Dims", "ITensor", "Status", "enums"]
