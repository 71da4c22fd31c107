"""``clipmux keys``, as a person uses it."""

from __future__ import annotations

from pathlib import Path

from command import clipmux


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
