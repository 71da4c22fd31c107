"""How many decoder cores, hosts, links and devices a load needs, from what the stages cost. Pure; docs/scaling.md.

Every amount is a rate × what one piece of work takes ÷ the share of a resource that is to be filled:

- decoder cores: frames/s · frame_s + clips/s · (send_s + link_send_s) + videos/s · end_s
- devices: clips/s ÷ clips/s of one
- inference links: clips/s · bytes of a clip ÷ bytes/s of a link
- inference processes: clips/s · (take_s + link_take_s), and one per device at least
- collectors: clips/s · collect_s + videos/s · write_s
- supervisors: videos/s · hand_out_s

``link_…`` only where clips are on a link: what fits one host needs none. A CPU that infers too has all of it on the
same cores, host by host, and nothing on a link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .costs import Costs, Stated
from .simulate import frames_of_clips

CLIP_BYTES = 16 * 112 * 112 * 3
"""Of a uint8 clip, as models of the reference have it."""

HEADER_BYTES = 200
"""Of a clip's header and framing, rounded up: engine/wire.py packs about 100."""

LINK_SHARE = 0.94
"""Of a link's bits that TCP carries: 1,448 of 1,538 bytes on the wire of a full Ethernet frame."""

VIDEOS_USE = 0.95
"""Share of each resource to fill with videos: pipeline efficiency in docs/benchmarks.md is 0.96 to 0.97."""

STREAMS_USE = 0.7
"""Share to fill with streams. A single server that is used to ρ lets a clip wait ρ ÷ 2(1 − ρ) of its service time
(Pollaczek and Khinchine, M/D/1): 1.2 at 0.7, 4.5 at 0.9."""


@dataclass(frozen=True)
class Load:
    """Work per second."""

    clips: float
    frames: float
    videos: float = 0.0

    def __mul__(self, times: float) -> Load:
        return Load(self.clips * times, self.frames * times, self.videos * times)


def video_load(seconds: float, fps: float, *, length: int = 16, stride: int = 16) -> Load:
    """What one video is, if one comes per second."""
    frames = max(1, round(seconds * fps))
    return Load(clips=len(frames_of_clips(frames, length=length, stride=stride)) - 1, frames=frames, videos=1)


def stream_load(fps: float, *, every_s: float) -> Load:
    """What one stream is: every frame of it is decoded, and a clip is complete every so many seconds."""
    return Load(clips=1 / every_s, frames=fps)


@dataclass(frozen=True)
class Site:
    """What there is to be had.

    Args:
        cores: of a host.
        devices: in an inference host at most.
        link_gbit: Gbit/s of a host's link.
        use: share of each resource to fill, up to 1.
        clip_bytes: of a clip on a link, header and all.
    """

    cores: int = 32
    devices: int = 8
    link_gbit: float = 25.0
    use: float = VIDEOS_USE
    clip_bytes: int = CLIP_BYTES + HEADER_BYTES

    @property
    def link_clips_per_s(self) -> float:
        """Clips that a link carries."""
        return self.link_gbit * 1e9 / 8 * LINK_SHARE / self.clip_bytes


@dataclass(frozen=True)
class Need:
    """How much of a resource a load takes.

    Args:
        name: of the resource.
        exact: how many would be filled to the last.
        count: whole ones, filled to the share that is to be filled.
        each: what one carries, in words.
    """

    name: str
    exact: float
    count: int
    each: str


def plan(load: Load, site: Site, stated: Stated) -> list[Need]:
    """What a load needs, with an accelerator if ``stated`` has ``clips_per_s``, else on CPUs.

    Raises:
        ValueError: neither an accelerator's pace nor a CPU's is known.
    """
    if stated.clips_per_s is None:
        return _on_cores(load, site, stated)
    one = _on_devices(load, site, stated, stated.clips_per_s, linked=False)
    counts = {need.name: need.count for need in one}
    devices = counts.pop("devices")
    together = sum(counts.values())
    if together <= site.cores and devices <= site.devices:
        return [*one, Need("hosts", together / site.cores, 1, f"{site.cores} cores, clips stay in memory")]
    return _on_devices(load, site, stated, stated.clips_per_s, linked=True)


def decoder_cores(load: Load, costs: Costs, *, linked: bool) -> float:
    """Cores that decoding, preprocessing and sending fill."""
    send_s = costs.send_s + linked * costs.link_send_s
    return load.frames * costs.frame_s + load.clips * send_s + load.videos * costs.end_s


def _on_devices(load: Load, site: Site, stated: Stated, rate: float, *, linked: bool) -> list[Need]:
    costs = stated.costs
    take_s = costs.take_s + linked * costs.link_take_s

    def need(name: str, exact: float, each: str = "", least: int = 1) -> Need:
        return Need(name, exact, max(least, _whole(exact / site.use)), each or _each(load, exact))

    decoding = need("decoder cores", decoder_cores(load, costs, linked=linked))
    device = need("devices", load.clips / rate, f"{rate:,.0f} clips/s")
    process = need("inference processes", load.clips * take_s, least=device.count)
    writing = [
        need("collectors", load.clips * costs.collect_s + load.videos * costs.write_s),
        need("supervisors", load.videos * costs.hand_out_s),
    ]
    if not linked:
        return [decoding, process, device, *writing]
    links = load.clips / site.link_clips_per_s
    link = need("inference links", links, f"{site.link_clips_per_s:,.0f} clips/s at {site.link_gbit:g} Gbit/s")
    hosts = max(link.count, _whole(process.count / site.cores), _whole(device.count / site.devices))
    decoders = _whole(decoding.count / site.cores)
    return [
        decoding,
        Need("decoder hosts", decoding.exact / site.cores, decoders, f"{site.cores} cores"),
        link,
        Need("inference hosts", device.exact / site.devices, hosts, f"{site.devices} devices, a link"),
        process,
        device,
        *writing,
    ]


def _each(load: Load, exact: float) -> str:
    """What one carries, if so many are filled."""
    return f"{load.clips / exact:,.0f} clips/s" if exact else "all there are"


def _on_cores(load: Load, site: Site, stated: Stated) -> list[Need]:
    if stated.infer_s is None:
        raise ValueError("neither clips_per_s nor infer_s is known")
    costs = stated.costs
    decoding = decoder_cores(load, costs, linked=False)
    infer = load.clips * (stated.infer_s + costs.take_s)
    rest = load.clips * costs.collect_s + load.videos * (costs.write_s + costs.hand_out_s)
    cores = decoding + infer + rest
    parts = {
        "cores to decode": decoding,
        "cores to infer": infer,
        "cores to collect and hand out": rest,
        "cores": cores,
    }
    return [
        *(Need(name, exact, _whole(exact / site.use), _each(load, exact)) for name, exact in parts.items()),
        Need("hosts", cores / site.cores, max(1, _whole(cores / site.use / site.cores)), f"{site.cores} cores"),
    ]


def _whole(amount: float) -> int:
    """Rounded up, but for what only rounding has put above a whole number."""
    return math.ceil(amount - 1e-9)
