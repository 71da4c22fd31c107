"""``clipmux keys``, as a person uses it."""

from __future__ import annotations

from pathlib import Path

import zmq
from command import clipmux

from clipmux.engine.keys import make_keys, read_keys


def test_keys_are_made_trusted_and_listed(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "config", tmp_path / "theirs"
    made = clipmux("keys", "new", XDG_CONFIG_HOME=str(mine))
    other = clipmux("keys", "new", "--keys", theirs)
    assert (made.returncode, other.returncode) == (0, 0), made.stderr + other.stderr
    key = other.stdout.strip()
    assert clipmux("keys", "trust", "camera-host", key, XDG_CONFIG_HOME=str(mine)).returncode == 0
    listed = clipmux("keys", "list", "--keys", mine / "clipmux" / "keys").stdout.splitlines()
    assert listed[0].startswith(made.stdout.strip())
    assert listed[1:] == [f"{key}  camera-host"]
    assert (mine / "clipmux" / "keys" / "own.secret").read_text().strip() not in "".join(listed)
    (theirs / "own.secret").chmod(0o644)
    refused = clipmux("keys", "list", "--keys", theirs)
    assert refused.returncode == 2
    assert f"chmod 600 '{theirs / 'own.secret'}'" in refused.stderr
    assert "clipmux keys new" in clipmux("keys", "list", "--keys", tmp_path / "none").stderr


def test_a_key_that_looks_like_an_option_is_trusted(tmp_path: Path) -> None:
    """No pair of ours has one, but others make pairs too."""
    keys, key = make_keys(tmp_path / "keys"), zmq.curve_keypair()[0]
    while not key.startswith(b"-"):
        key = zmq.curve_keypair()[0]
    told = clipmux("keys", "trust", "camera-host", key.decode(), "--keys", keys.folder)
    assert told.returncode == 0, told.stderr
    assert read_keys(keys.folder).trusted == {key: "camera-host"}
    assert clipmux("keys", "trust", "-h").returncode == 0
