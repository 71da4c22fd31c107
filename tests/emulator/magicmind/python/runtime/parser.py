"""``Parser`` [V], for ONNX and TorchScript files; the other kinds are named and not emulated."""

from __future__ import annotations

from typing import Any

import onnx
from google.protobuf.message import DecodeError

from ..cc._pywrap_runtime import Status
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import Code, DataType, ModelKind
from ..cc._pywrap_runtime.status import failure
from . import faults
from .graph import GraphError
from .network import Content, Network
from .torchscript import Script

PARAMETERS = {
    ModelKind.kPytorch: {"pytorch-input-dtypes"},
    ModelKind.kTensorflow: {"tf-model-type", "tf-graphdef-inputs", "tf-graphdef-outputs", "tf-infer-shape"},
}


class Parser:
    """Reads files of one kind."""

    def __init__(self, kind: ModelKind) -> None:
        need("Parser", kind, ModelKind)
        self._kind = kind
        self._parameters: dict[str, Any] = {}

    def set_model_param(self, key: str, value: Any) -> Status:
        need("set_model_param", key, str)
        if key not in PARAMETERS.get(self._kind, ()):
            return failure(f"a parser of {self._kind.name} has no parameter '{key}'")
        if key == "pytorch-input-dtypes":
            need("set_model_param", value, list, tuple)
            for kind in value:
                need("set_model_param", kind, DataType)
        self._parameters[key] = value
        return Status.OK()

    def parse(self, network: Network, *paths: str) -> Status:
        """Read a file into an empty network; nothing is in it when the status is not OK."""
        need("parse", network, Network)
        for path in paths:
            need("parse", path, str)
        if faults.strikes("parse"):
            return failure("a fault was asked for")
        if self._kind not in (ModelKind.kOnnx, ModelKind.kPytorch):
            return failure(f"{self._kind.name} is not emulated", Code.UNAVAILABLE)
        if len(paths) != 1:
            return failure(f"{self._kind.name} takes one file, not {len(paths)}")
        if network._content is not None:
            return failure("the network is not empty")
        try:
            network._content = self._read(paths[0])
        except (GraphError, OSError, DecodeError, onnx.checker.ValidationError) as error:
            return failure(f"cannot parse '{paths[0]}': {next(iter(str(error).splitlines()), type(error).__name__)}")
        return Status.OK()

    def _read(self, path: str) -> Content:
        if self._kind is ModelKind.kPytorch:
            if "pytorch-input-dtypes" not in self._parameters:
                raise GraphError("set_model_param('pytorch-input-dtypes', [...]) has to come first")
            return Content.of_script(Script(path), list(self._parameters["pytorch-input-dtypes"]))
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return Content.of_onnx(model)
