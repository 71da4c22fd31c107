"""Makes this process and its children find a kernel without Landlock: its system calls answer ENOSYS."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from clipmux.engine.jail import _MACHINES


def pretend() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    assert libc.prctl(38, 1, None, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert platform.machine() in _MACHINES
    program = [
        (0x20, 0, 0, 0),  # the call's number
        (0x15, 0, 1, 444),  # landlock_create_ruleset
        (0x06, 0, 0, 0x00050000 | errno.ENOSYS),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    assert libc.prctl(22, 2, struct.pack("@HP", len(program), ctypes.addressof(code)), 0, 0) == 0
