"""What the options of ``clipmux serve-inference`` are for, for both programs that have them."""

from __future__ import annotations

CONNECT = "Where the engine waits for it: ipc:///FOLDER or tcp://HOST:PORT, as its --inference-at says."
MODEL = "Model folder, where it is elsewhere here than it is for the engine."
LISTEN = "Over TCP: where decoders reach this host; each device takes a port, from this one on."
KEYS = "Over TCP: folder of keys; ~/.config/clipmux/keys unless given."
SERVER = "Over TCP: the name that the engine's key is trusted by, if several are."
STAY = "When a run is over, wait for the next one."
