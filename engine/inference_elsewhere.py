"""Inference that is started elsewhere: in a vendor's container, whose Python is an older one, or on another machine.

The engine waits for an *inference host* (engine/inference_host.py), which has the devices that the run names. Through
the folder of the sockets it is reached as a process of this machine is. Over TCP it says where it takes clips, and
decoders send them there; scores come to the collector as they do from other hosts.

Nothing is decoded while it is not there. When it is lost, everything that has no outcome is handed out again once it
or another has joined.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from abc import abstractmethod
from pathlib import Path

from .children import CAMERA, DECODER, INFERENCE, Child
from .clips import Way
from .config import JPEG, EngineConfig
from .errors import UsageError
from .hosting import Host, Hosting, far
from .hosts import HostingSupervisor
from .keys import default_folder, read_keys
from .live import LiveSupervisor, Stream
from .messages import RECONNECTING, Failed, Join, Offer, quoted
from .sockets import IPC, Addresses, name_addresses, own_addresses_in, split_address
from .supervisor import Supervisor

log = logging.getLogger(__name__)


class InferenceElsewhere(Hosting):
    """The processes of an engine whose inference joins at ``config.inference_at``."""

    _host: Host | None = None
    _clips_at: tuple[str, ...] = ()
    """Where its devices take clips; nothing where that is in the folder of the sockets."""
    _peer: tuple[str, str] | None = None

    @abstractmethod
    def _joined(self) -> None:
        """Inference is there: start those who send to it."""

    def _name_addresses(self, keys: Path) -> Addresses:
        at, devices = self._config.inference_at, len(self._config.devices)
        if at.startswith(IPC):
            return own_addresses_in(Path(at[len(IPC) :]), devices=devices)
        return name_addresses(at, keys, devices=devices)

    def _join(self, name: str, offer: Join | Offer) -> None:
        try:
            self._welcome(name, offer)
        except UsageError as error:
            self._send_to(name, Failed(str(error), usage=True))

    def _welcome(self, name: str, offer: Join | Offer) -> None:
        """
        Raises:
            UsageError: it cannot be used.
        """
        if not isinstance(offer, Offer):
            raise UsageError("it has decoders of its own: it waits for inference (clipmux serve-inference)")
        if self._host is not None:
            raise UsageError(f"inference has joined already, from {quoted(self._host.about)}")
        self._clips_at, self._peer = (), None
        if not self._config.inference_at.startswith(IPC):
            if not offer.clips:
                raise UsageError("it does not say where it takes clips: give serve-inference --listen HOST:PORT")
            place, first = split_address(offer.clips)
            folder = Path(self._config.keys) if self._config.keys else default_folder()
            known = read_keys(folder).trusted.get(offer.key.encode())
            if known is None:
                raise UsageError(f"its key {quoted(offer.key)} is not trusted here")
            ports = range(first, first + len(self._config.devices))
            self._clips_at = tuple(f"tcp://{place}:{port}" for port in ports)
            self._peer = (str(folder.resolve()), known)
        self._host = self._hosts[name] = Host(name, offer.host, time.monotonic())
        log.info("%s joined with inference, as %s", quoted(offer.host), name)
        self._due = [start for start in self._due if start[1] != INFERENCE]
        for device in range(len(self._config.devices)):
            self._start_inference(device)
        self._joined()

    def _lose(self, host: Host, how: str) -> None:
        self._host = None
        super()._lose(host, how)

    def _start_inference(self, device: int) -> None:
        """As soon as somebody has joined who can."""
        if self._host is not None:
            self._begin(self._host, INFERENCE, device, same_model=self._model.to_json())

    def _start_again(self, role: str, seat: int) -> None:
        if role == INFERENCE:
            self._start_inference(seat)
        else:
            super()._start_again(role, seat)

    def _restart(self, child: Child, how: str) -> None:
        if child.role != INFERENCE or self._host is not None:  # else whoever joins next starts it
            super()._restart(child, how)

    def _failed(self, child: Child, message: Failed) -> None:
        """What has never worked would not work another time."""
        if child.role == INFERENCE and child.post not in self._were_ready and message.usage and self._host is not None:
            self._send_to(self._host.name, message)
            raise UsageError(f"inference cannot start where it was joined from: {message.message}")
        super()._failed(child, message)

    def _ways(self, role: str, seat: int) -> list[Way]:
        ways = super()._ways(role, seat)
        if not self._clips_at:
            return ways
        if role == INFERENCE:
            return [dataclasses.replace(way, squeezed=self._config.wire == JPEG) for way in ways]
        places = zip(far(ways, self._config), self._clips_at, strict=True)
        return [dataclasses.replace(way, address=address) for way, address in places]

    def _peer_of(self, role: str) -> tuple[str, str] | None:
        return self._peer if role in (DECODER, CAMERA) else None


class RunWithInferenceElsewhere(InferenceElsewhere, Supervisor):
    """``Supervisor``, whose inference joins from elsewhere."""

    def _joined(self) -> None:
        for seat in range(self._growth.count):
            self._start_decoder(seat)

    def _start_decoder(self, seat: int) -> None:
        if self._host is not None:
            super()._start_decoder(seat)

    def _start_again(self, role: str, seat: int) -> None:
        if role == DECODER:
            self._start_decoder(seat)
        else:
            super()._start_again(role, seat)

    def _lose(self, host: Host, how: str) -> None:
        self._due = [start for start in self._due if start[1] != DECODER]
        super()._lose(host, how)
        self._break_off(INFERENCE)


class LiveWithInferenceElsewhere(InferenceElsewhere, LiveSupervisor):
    """``LiveSupervisor``, whose inference joins from elsewhere."""

    def _joined(self) -> None:
        """Cameras that wait start once it is ready."""

    def _start_camera(self, stream: Stream) -> None:
        if self._host is not None:
            super()._start_camera(stream)
        else:
            self._again(stream, RECONNECTING, "inference is away")


def kind_of_run(config: EngineConfig) -> type[Supervisor]:
    """What runs an engine that classifies videos."""
    if config.inference_at:
        return RunWithInferenceElsewhere
    return HostingSupervisor if config.far_decoders else Supervisor


def kind_of_watch(config: EngineConfig) -> type[LiveSupervisor]:
    """What runs an engine that watches streams."""
    return LiveWithInferenceElsewhere if config.inference_at else LiveSupervisor
