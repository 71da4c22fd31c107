"""Keys of CurveZMQ, by which machines know each other over TCP.

A folder holds one's own pair, ``own.secret`` and ``own.public``, and in ``trusted/`` a file ``NAME.public`` for each
peer that may connect: the allow-list. Whoever is not in it does not get as far as sending a message. A key is 40
characters, Z85 (ZeroMQ RFC 32) of 32 bytes; keys travel between people, who compare them by a way they trust.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from .errors import UsageError

SECRET, PUBLIC, TRUSTED = "own.secret", "own.public", "trusted"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY_LENGTH = 40
FILE_MOST = 1 << 10
TRUSTED_MOST = 10_000


def default_folder() -> Path:
    """``$XDG_CONFIG_HOME/clipmux/keys``, which is ``~/.config/clipmux/keys`` unless said otherwise."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "clipmux" / "keys"


@dataclass(frozen=True)
class Keys:
    """A folder of keys, read and checked.

    Args:
        folder: it.
        public: one's own, Z85.
        secret: one's own, Z85; not shown.
        trusted: peers that may connect: name by public key, Z85.
    """

    folder: Path
    public: bytes
    secret: bytes
    trusted: dict[bytes, str]

    def __repr__(self) -> str:
        return f"Keys({str(self.folder)!r}, public={self.public.decode()!r}, {len(self.trusted)} trusted)"


def make_keys(folder: Path) -> Keys:
    """Make a folder with a pair of keys of one's own, readable for this user only.

    Raises:
        UsageError: there is one already, others may use the folder, or it cannot be written.
    """
    public, secret = zmq.curve_keypair()
    while public.startswith(b"-"):  # a command line would take it for an option
        public, secret = zmq.curve_keypair()
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, mode=stat.S_IRWXU)
        _check_private(folder, folder=True)  # one that was there keeps its mode: others may need it as it is
        (folder / TRUSTED).mkdir(exist_ok=True, mode=stat.S_IRWXU)
        _write(folder / SECRET, secret)
        try:
            _write(folder / PUBLIC, public)
        except OSError:
            (folder / SECRET).unlink()
            raise
    except FileExistsError as error:
        raise UsageError(
            f"'{error.filename}' is there already: peers know its key; give another --keys, or remove it first"
        ) from None
    except OSError as error:
        raise UsageError(f"keys cannot be written to '{folder}' ({error.strerror}): give another --keys") from None
    return read_keys(folder)


def trust(folder: Path, name: str, key: str) -> None:
    """Let the peer that has this public key connect, and call it by this name.

    Raises:
        UsageError: not a name, not a key, another key has that name, or it cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"a peer cannot be called '{name}': give letters, digits, '.', '_' and '-', 64 at most")
    keys = read_keys(folder)
    checked = _key(key.encode(errors="replace"), "the key")
    if (known := keys.trusted.get(checked, name)) != name:
        raise UsageError(f"that key is trusted already, as '{known}': remove '{_trusted(folder, known)}' first")
    if checked in keys.trusted:
        return
    try:
        _write(_trusted(folder, name), checked)
    except FileExistsError:
        raise UsageError(
            f"'{name}' is trusted already, with another key: remove '{_trusted(folder, name)}' first"
        ) from None
    except OSError as error:
        raise UsageError(f"'{_trusted(folder, name)}' cannot be written ({error.strerror}): check the disk") from None


def read_keys(folder: Path) -> Keys:
    """Read a folder of keys.

    Raises:
        UsageError: it is not there, others than this user may read or change it, or a file holds no key.
    """
    try:
        _check_private(folder, folder=True)
        public, secret = _read(folder / PUBLIC), _read(folder / SECRET)
        if zmq.curve_public(secret) != public:
            raise UsageError(f"'{folder / PUBLIC}' does not belong to '{SECRET}' beside it: make a new pair")
        _check_private(folder / TRUSTED, folder=True)
        trusted: dict[bytes, str] = {}
        for path in sorted((folder / TRUSTED).iterdir())[: TRUSTED_MOST + 1]:
            if path.suffix != ".public" or not NAME.fullmatch(path.stem):
                raise UsageError(f"'{path}' is not a NAME.public: move it elsewhere")
            key = _read(path)
            if key in trusted:
                raise UsageError(f"'{path}' holds the key of '{trusted[key]}' again: remove one of them")
            trusted[key] = path.stem
    except FileNotFoundError as error:
        raise UsageError(
            f"there are no keys at '{folder}' ('{error.filename}' is missing): make them with 'clipmux keys new'"
        ) from None
    except OSError as error:
        raise UsageError(f"'{error.filename}' cannot be read ({error.strerror}): check its permissions") from None
    if len(trusted) > TRUSTED_MOST:
        raise UsageError(f"'{folder / TRUSTED}' holds more than {TRUSTED_MOST:,} keys: remove those of no use")
    return Keys(folder, public, secret, trusted)


def the_peer(keys: Keys, name: str) -> str:
    """The name of who is to be connected to: this one, or the only one that is trusted.

    Raises:
        UsageError: there is none, or it is not said which.
    """
    names = sorted(keys.trusted.values())
    if not names:
        raise UsageError(f"'{keys.folder}' trusts nobody: say the server's key with 'clipmux keys trust NAME KEY'")
    if not name and len(names) > 1:
        raise UsageError(f"'{keys.folder}' trusts {len(names)} machines: say with --server which one it is")
    return name or names[0]


def _trusted(folder: Path, name: str) -> Path:
    return folder / TRUSTED / f"{name}.public"


def _check_private(path: Path, *, folder: bool = False) -> None:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        raise UsageError(f"'{path}' belongs to another user: make keys of your own with 'clipmux keys new'")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        right = "700" if folder else "600"
        raise UsageError(f"'{path}' may be used by others (mode {mode:o}): chmod {right} '{path}'")


def _read(path: Path) -> bytes:
    _check_private(path)
    with path.open("rb") as file:
        return _key(file.read(FILE_MOST).strip(), f"'{path}'")


def _key(text: bytes, where: str) -> bytes:
    """Z85 has exactly one form for each key, so that equal texts are equal keys."""
    try:
        if len(text) == KEY_LENGTH and z85.encode(z85.decode(text)) == text:
            return text
    except Exception as error:  # KeyError or struct.error, for what is not Z85
        raise UsageError(f"{where} is not a key ({type(error).__name__}): 40 characters of Z85 belong there") from None
    raise UsageError(f"{where} is not a key: 40 characters of Z85 belong there")


def _write(path: Path, key: bytes) -> None:
    """A new file that nobody else may ever have opened."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  (of a descriptor)
            file.write(key + b"\n")
    except OSError:
        path.unlink()  # an empty one would be no key for whoever reads it
        raise
