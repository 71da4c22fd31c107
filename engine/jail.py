"""What a child process gives up before it does anything else: files to write, programs to run, networks, memory.

Decoding is where foreign bytes meet C code. A decoder needs to read files, to compute, and to talk through the sockets
of its own engine; whoever takes it over should get no more than that. The kernel sees to it (Linux): resource limits
and ``no_new_privs`` everywhere, Landlock (which files) and a seccomp filter (which system calls) where it has them.
Both bind only the thread that asks for them and those that it starts, so ``begin`` comes before any other import: the
libraries behind numpy start threads as they are loaded.

Read with it: landlock(7), seccomp(2), linux/landlock.h, linux/filter.h, the system call tables of both machines.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Tuple  # noqa: UP035

from .errors import UsageError
from .orphans import ORPHANED, end_the_others

AUTO, ON, OFF = "auto", "on", "off"
JAILS = (AUTO, ON, OFF)
"""As much as the kernel gives; everything or nothing started; resource limits only."""

FILES = 256
"""Open files of a jailed process at most; a decoder has about 20."""


@dataclass(frozen=True)
class Jail:
    """What a child keeps.

    Args:
        lock: whether files, programs and networks are taken from it: one of ``JAILS``.
        data_bytes: memory that it may fill; 0 for as much as there is.
        network: it may connect to other machines (for a camera's stream, videos by URL, or clips that go there).
        devices: paths that it may also write to (a camera's ``/dev/video0``).
        privileges: a program that it runs may gain some (a driver's helper may have to).
    """

    lock: str = OFF
    data_bytes: int = 0
    network: bool = False
    devices: tuple[str, ...] = ()
    privileges: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Jail:
        return cls(**{**content, "devices": tuple(content["devices"])})


@dataclass(frozen=True)
class Kernel:
    """What this kernel gives.

    Args:
        landlock: its ABI version; 0 for none.
        seccomp: it takes filters, and we know its machine's system calls.
        lacks: what is missing and why, in words; nothing where all is there.
    """

    landlock: int
    seccomp: bool
    lacks: str

    def __str__(self) -> str:
        has = [f"Landlock ABI {self.landlock}"] * (self.landlock > 0) + ["seccomp"] * self.seccomp
        return " and ".join(has) + (f"; {self.lacks}" if has and self.lacks else self.lacks)


def begin() -> dict[str, Any]:
    """The first thing a child does: read its settings, and give up what they say.

    Returns:
        The settings; in place of the jail they then say what came of it.
    """
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):  # the supervisor died before it had said everything
        end_the_others(Path(sys.argv[3]))
        os._exit(ORPHANED)
    told: dict[str, Any] = json.loads(line)
    asked = told["content"].get("jail")
    if asked is not None:
        told["content"]["jail"] = confine(Jail.from_json(asked))
    return told


def confine(jail: Jail) -> str:
    """Give up what ``jail`` does not keep, for good; say in words what that came to.

    Raises:
        UsageError: it is to be locked, and cannot be.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold pixels of a video
    if sys.platform != "linux":
        kernel = kernel_gives()
        return _unlocked(jail, kernel)
    if not jail.privileges:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if jail.data_bytes:
        _lower(resource.RLIMIT_DATA, jail.data_bytes)
        _lower(resource.RLIMIT_NOFILE, FILES)
    if jail.lock == OFF:
        return "off"
    kernel = kernel_gives()
    if kernel.lacks and jail.lock == ON:
        return _unlocked(jail, kernel)
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208  (only their number is wanted)
        raise UsageError("a process that has several threads cannot be jailed as a whole")
    _drop_capabilities()
    if kernel.landlock:
        _landlock(kernel.landlock, jail)
    if kernel.seccomp:
        _filter_calls(jail)
    return str(kernel)


def check_jail(lock: str) -> str:
    """What children that are locked like this will be held by, in words.

    Raises:
        UsageError: it must be all, and this kernel has less.
    """
    kernel = kernel_gives()
    if lock == ON and kernel.lacks:
        _unlocked(Jail(lock), kernel)
    return OFF if lock == OFF else str(kernel)


def kernel_gives() -> Kernel:
    """Ask the kernel what it has; nothing changes by that."""
    if sys.platform != "linux":
        return Kernel(0, seccomp=False, lacks=f"nothing to jail decoders with on {sys.platform}")
    lacks = []
    landlock = _LIBC.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if landlock < 0:
        lacks.append(f"no Landlock ({os.strerror(ctypes.get_errno())})")
    known = platform.machine() in _MACHINES
    filters = _LIBC.prctl(_PR_GET_SECCOMP, 0, None, 0, 0) >= 0
    if not known:
        lacks.append(f"no seccomp filter for the machine {platform.machine()}")
    elif not filters:
        lacks.append(f"no seccomp ({os.strerror(ctypes.get_errno())})")
    return Kernel(max(0, landlock), known and filters, ", ".join(lacks))


def allow_cpu(seconds: float) -> None:
    """Let this process compute for so long from now on; beyond that the kernel ends it with SIGXCPU."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _unlocked(jail: Jail, kernel: Kernel) -> str:
    if jail.lock == ON:
        raise UsageError(f"decoders cannot be jailed here, {kernel.lacks}: give --jail auto, or off")
    return OFF if jail.lock == OFF else str(kernel)


def _lower(limit: int, to: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        to = min(to, hard)
    resource.setrlimit(limit, (to, to))


# --- the kernel's words ----------------------------------------------------------------------------------------------

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
_LIBC.syscall.restype = ctypes.c_long

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 21, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3, _READ_SEARCH = 0x20080522, 1 << 2

_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR, _WRITE_FILE, _IOCTL_DEV = 1 << 2, 1 << 3, 1 << 1, 1 << 15
_FS_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: _IOCTL_DEV}
"""Rights on files that each ABI brought: 1 the most, 2 linking across folders, 3 truncating, 5 controls of devices."""
_TCP_FROM, _TCP = 4, 0b11
"""Binding and connecting."""
_SCOPES_FROM, _SCOPES = 6, 0b11
"""Abstract Unix sockets of others, and signals to others."""


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, value: int, argument: bytes | None = None) -> None:
    _checked(_LIBC.prctl(option, value, argument, 0, 0))


def _drop_capabilities() -> None:
    """Of what makes root root, keep that it may read everyone's files; whoever is not root has nothing to lose."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)  # effective, permitted, inheritable of capabilities 0…31, then of the others
    _checked(_LIBC.capget(header, held))
    effective, permitted, *_ = struct.unpack("=6I", held.raw)
    kept = struct.pack("=6I", effective & _READ_SEARCH, permitted & _READ_SEARCH, 0, 0, 0, 0)
    _checked(_LIBC.capset(header, kept))


def _landlock(abi: int, jail: Jail) -> None:
    """Reading stays as it is. Nothing else does: no file can be written, made, removed or executed."""
    handled = sum(rights for since, rights in _FS_RIGHTS.items() if abi >= since)
    tcp = _TCP if abi >= _TCP_FROM and not jail.network else 0
    scopes = _SCOPES if abi >= _SCOPES_FROM else 0
    attributes = struct.pack("=QQQ", handled, tcp, scopes)
    if abi < _SCOPES_FROM:  # an older kernel takes a longer one too, as long as what it does not know is 0
        attributes = attributes[: 16 if abi >= _TCP_FROM else 8]
    ruleset = _checked(
        _LIBC.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    )
    try:
        _allow(ruleset, "/", _READ_FILE | _READ_DIR)
        for device in filter(os.path.exists, jail.devices):  # opening one that is not there says so
            _allow(ruleset, device, (_READ_FILE | _WRITE_FILE | _IOCTL_DEV) & handled)
        _checked(_LIBC.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint(0)))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, place)
        _checked(_LIBC.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, ctypes.c_uint(0)))
    finally:
        os.close(place)


# --- system calls ----------------------------------------------------------------------------------------------------

_X86_64, _AARCH64 = "x86_64", "aarch64"
_MACHINES = {_X86_64: 0xC000003E, _AARCH64: 0xC00000B7}
"""AUDIT_ARCH_… of the machines whose numbers are here."""

# fmt: off
_DENIED = {
    # to run another program, or another process
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    # to reach into other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kill": (62, 129),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "kcmp": (312, 272), "move_pages": (279, 239), "migrate_pages": (256, 238),
    # what Landlock does not see: modes, owners, times and attributes of files
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466),
    # to get round a filter: io_uring does the work of other calls
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265), "personality": (135, 92), "modify_ldt": (154, None),
    # parts of the kernel that are large, that attacks have come through, and that no codec needs
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "fanotify_init": (300, 262), "vmsplice": (278, 75),
    "lookup_dcookie": (212, 18),
    # what only root could do, should this run as root
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429),
    "open_tree": (428, 428), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, None), "ioperm": (173, None), "vhangup": (153, 58), "setuid": (105, 146), "setgid": (106, 144),
    "setreuid": (113, 145), "setregid": (114, 143), "setresuid": (117, 147), "setresgid": (119, 149),
    "setgroups": (116, 159), "setfsuid": (122, 151), "setfsgid": (123, 152), "capset": (126, 91), "mknod": (133, None),
    "mknodat": (259, 33),
}
"""System calls that answer EPERM: their numbers on x86-64 and on aarch64, None where a machine has no such call."""
# fmt: on

_CLONE, _CLONE3, _SOCKET, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (41, 198), (234, 131), (302, 261)
_CLONE_THREAD = 0x10000
_X32_BIT = 0x40000000
"""Marks system calls of x86-64's other ABI, which has numbers of its own."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF: A ← the word at k, compare A with k and skip, return k."""
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16
"""Offsets in struct seccomp_data; of the first argument its lower half, both machines being little-endian."""
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

Instruction = Tuple[int, int, int, int]  # noqa: UP006  (see messages.py)
"""Code, how many to skip if true, how many if false, k."""


def _filter_calls(jail: Jail) -> None:
    program = filter_program(platform.machine(), jail, pid=os.getpid())
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    code = ctypes.create_string_buffer(packed, len(packed))
    described = struct.pack("@HP", len(program), ctypes.addressof(code))  # struct sock_fprog
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described)


def filter_program(machine: str, jail: Jail, *, pid: int) -> list[Instruction]:
    """The filter: everything is allowed but ``_DENIED``, new processes, signals to others and foreign sockets.

    A list of what is denied, since what libraries call changes with their versions: what an attack needs does not.

    Args:
        machine: a key of ``_MACHINES``.
        jail: whether sockets of a network are allowed.
        pid: of the process that will be held.
    """
    column = list(_MACHINES).index(machine)
    families = {socket.AF_UNIX}
    if jail.network:
        families |= {socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}  # the resolver asks for interfaces
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, _MACHINES[machine]),
        _answer(errno.EPERM),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == _X86_64:
        program += [(_AT_LEAST, 0, 1, _X32_BIT), _answer(errno.EPERM)]
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            program += [(_EQUAL, 0, 1, number), _answer(errno.EPERM)]
    program += [(_EQUAL, 0, 1, _CLONE3[column]), _answer(errno.ENOSYS)]  # its flags are in memory; clone's can be seen
    program += _only(_CLONE[column], _ANY_BIT, [_CLONE_THREAD])
    program += _only(_SOCKET[column], _EQUAL, sorted(families))
    program += _only(_TGKILL[column], _EQUAL, [pid])
    program += _only(_PRLIMIT[column], _EQUAL, [0, pid])
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _only(number: int, test: int, values: Iterable[int]) -> list[Instruction]:
    """Allow a call only where its first argument passes the test with one of the values."""
    tests: list[Instruction] = []
    for value in values:
        tests += [(test, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    inner = [(_LOAD, 0, 0, _ARGUMENT_AT), *tests, _answer(errno.EPERM)]
    return [(_EQUAL, 0, len(inner), number), *inner]


def _answer(error: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | error)
