"""``Model`` [V]: what ``build_model`` returns and what files hold. A deserialised one carries no ``Network``."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

from ..cc._pywrap_runtime import Dims, Status
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import DataType
from ..cc._pywrap_runtime.status import failure
from . import faults, machine
from .engine import Engine
from .program import Port, Program, ProgramError

if TYPE_CHECKING:
    from .elsewhere import Elsewhere
    from .executable import Executable


class EngineConfig:
    """``device_type`` is ``"MLU"``, the only one."""

    def __init__(self) -> None:
        self._device_type = "MLU"

    @property
    def device_type(self) -> str:
        return self._device_type

    @device_type.setter
    def device_type(self, name: str) -> None:
        need("EngineConfig.device_type", name, str)
        self._device_type = name


class Model:
    """Empty until it is deserialised."""

    EngineConfig = EngineConfig

    def __init__(self) -> None:
        self._program: Program | None = None
        self._path = ""
        self._executable: Executable | Elsewhere | None = None

    @classmethod
    def _of(cls, program: Program) -> Model:
        model = cls()
        model._program = program
        return model

    def serialize_to_file(self, path: str) -> Status:
        need("serialize_to_file", path, str)
        if faults.strikes("serialize_to_file"):
            return failure("a fault was asked for")
        if self._program is None:
            return failure("the model is empty")
        try:
            self._program.write(path)
        except OSError as error:
            return failure(f"cannot write '{path}' ({error.strerror})")
        return Status.OK()

    def deserialize_from_file(self, path: str) -> Status:
        need("deserialize_from_file", path, str)
        if faults.strikes("deserialize_from_file"):
            return failure("a fault was asked for")
        try:
            self._program, self._path, self._executable = Program.read(path), path, None
        except (OSError, ProgramError) as error:
            return failure(f"cannot read '{path}': {error}")
        return Status.OK()

    def create_i_engine(self, config: EngineConfig | None = None) -> Engine | None:
        """An engine on the device that is active in this thread, or None."""
        if config is not None:
            need("create_i_engine", config, EngineConfig)
        if faults.strikes("create_i_engine"):
            return machine.complain("create_i_engine", "a fault was asked for")
        device = machine.current_device()
        if self._program is None:
            return machine.complain("create_i_engine", "the model is empty")
        if config is not None and config.device_type != "MLU":
            return machine.complain("create_i_engine", f"no device type '{config.device_type}': it is MLU")
        if device is None:
            return machine.complain("create_i_engine", "no device is active in this thread")
        reason = _misfit(self._program)
        if reason is not None:
            return machine.complain("create_i_engine", reason)
        if self._executable is None:
            try:
                self._executable = _executable(self._program, self._path)
            except OSError as error:
                return machine.complain("create_i_engine", str(error))
        return Engine._of(self, self._executable, device)

    def get_input_num(self) -> int:
        return len(self._inputs)

    def get_output_num(self) -> int:
        return len(self._outputs)

    def get_input_names(self) -> list[str]:
        return [port.name for port in self._inputs]

    def get_output_names(self) -> list[str]:
        return [port.name for port in self._outputs]

    def get_input_data_types(self) -> list[DataType]:
        return [port.data_type for port in self._inputs]

    def get_output_data_types(self) -> list[DataType]:
        return [port.data_type for port in self._outputs]

    def get_input_dimensions(self) -> list[Dims]:
        return [Dims(port.dims) for port in self._inputs]

    def get_output_dimensions(self) -> list[Dims]:
        return [Dims(port.dims) for port in self._outputs]

    def get_input_data_type(self, index: int) -> DataType:
        need("get_input_data_type", index, int)
        return self.get_input_data_types()[index]

    def get_input_dimension(self, index: int) -> Dims:
        need("get_input_dimension", index, int)
        return self.get_input_dimensions()[index]

    @property
    def _inputs(self) -> tuple[Port, ...]:
        return self._program.inputs if self._program else ()

    @property
    def _outputs(self) -> tuple[Port, ...]:
        return self._program.outputs if self._program else ()


def _executable(program: Program, path: str) -> Executable | Elsewhere:
    """What computes a program, which was read from ``path`` where this interpreter can build none.

    Raises:
        OSError: nothing does.
    """
    if importlib.util.find_spec("torch"):
        from .executable import Executable

        return Executable(program)
    from .elsewhere import Elsewhere  # not before: the other interpreter runs it as its main module

    python = os.environ.get("MAGICMIND_EMULATOR_PYTHON")
    if not python:
        raise OSError("there is no torch here: MAGICMIND_EMULATOR_PYTHON has to name an interpreter that has it")
    return Elsewhere(program, path, python)


def _misfit(program: Program) -> str | None:
    """Why the emulated device cannot run a program, if it cannot.

    Of the cluster counts built for, the device takes its own or the nearest below; if all exceed it, running fails [V].
    """
    if program.archs and machine.arch() not in program.archs:
        return f"the model is for {', '.join(program.archs)}, the device is {machine.arch()}"
    clusters = program.archs.get(machine.arch(), [])
    if clusters and min(clusters) > machine.clusters():
        return f"the model is for {clusters} clusters, the device has {machine.clusters()}"
    return None
