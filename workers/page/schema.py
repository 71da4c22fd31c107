"""What the page's API answers, for ``/openapi.json``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Label(BaseModel):
    label: str
    score: float = Field(description="Smoothed, 0…1.")


class Latency(BaseModel):
    """Seconds from a clip's last frame decoded to its scores, over the last minute."""

    p50: float
    p99: float


class Stream(BaseModel):
    name: str
    url: str = Field(description="Without credentials.")
    state: str = Field(description="connecting, live, stalled, reconnecting or ended.")
    detail: str = Field(description="One sentence, or nothing.")
    connection: int = Field(description="Which (re)connect this is, from 1.")
    labels: list[Label] = Field(description="The three best, best first; none while nothing is seen.")
    latency_s: Latency | None
    clips: int = Field(description="Scored so far.")
    dropped: int = Field(description="Clips so far that were not scored, because the device could not keep up.")
    picture_at: float | None = Field(description="Unix time of its thumbnail.")
    fps: float | None = None
    width: int | None = None
    height: int | None = None


class Totals(BaseModel):
    model_config = ConfigDict(extra="allow")

    streams: int
    live: int
    clips: int
    dropped: int
    events: int
    clips_per_s: float | None = None
    batch_fill: float | None = Field(None, description="Mean batch ÷ the preferred batch.")
    device_busy: float | None = Field(None, description="Share of the time.")


class Snapshot(BaseModel):
    at: float = Field(description="Unix time.")
    totals: Totals
    streams: list[Stream]


class HappenedEvent(BaseModel):
    id: int = Field(description="Rises with every event, also when clipmux begins anew, unless the clock was set back.")
    stream: str
    event: str = Field(description="started or ended.")
    label: str
    start: str | None = Field(description="ISO 8601, UTC.")
    end: str | None
    start_s: float = Field(description="In the stream's own time.")
    end_s: float | None
    peak: float = Field(description="The best smoothed score so far.")
    connection: int


class Events(BaseModel):
    events: list[HappenedEvent]
