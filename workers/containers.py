"""Does a file end where its own container says that it ends? Read from the headers; no frame is decoded.

Several demuxers report a file that was cut short as if it simply ended there: Matroska and WebM always, the others
where the cut falls between two packets. The sizes in a container's own structure tell; frame counts do not, they are
often overstated.
"""

from __future__ import annotations

from typing import BinaryIO

_MP4_FIRST = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid")
_MP4_MEDIA = (b"moov", b"moof", b"mdat")
"""The boxes that a video cannot do without; a wrong size of another one (``free``, ``udta``) harms nothing."""

_EBML = bytes.fromhex("1a45dfa3")
_SEGMENT = bytes.fromhex("18538067")
_CLUSTER = bytes.fromhex("1f43b675")

_PARTS = 500_000
"""Parts of a file to walk over at most, some seconds' worth; a file of more, made to take hours, does not say."""

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def is_short_transport_stream(file: BinaryIO, size: int) -> bool:
    """Whether a file is an MPEG transport stream of so few packets that libav takes it for something else.

    Args:
        file: open; it is read from its beginning.
        size: its bytes.

    Raises:
        OSError: the file cannot be read.
    """
    if not 0 < size < 100 * 188 or size % 188:
        return False
    file.seek(0)
    content = file.read(size)
    return content[::188] == b"\x47" * (size // 188)


def missing_bytes(file: BinaryIO, size: int) -> int:
    """How many bytes at least were cut off the end of a file of ``size`` bytes, by its container's own structure.

    0: it is whole, or the container does not say (FLV, MPEG program streams, raw video …), or its kind is unknown.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    start = file.read(16)
    if start[4:8] in _MP4_FIRST:
        end = _mp4_end(file, size)
    elif start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        end = _avi_end(file, size)
    elif start[:4] == _EBML:
        end = _matroska_end(file, size)
    elif start == _ASF_HEADER:
        end = _asf_end(file, size)
    else:
        end = _transport_end(file, size)
    return max(0, end - size)


# Each of these walks the outermost parts of a file and returns where the first one ends that does not fit into it; or
# some place inside the file, where everything that it could follow fits.


def _mp4_end(file: BinaryIO, size: int) -> int:
    """MP4, MOV, 3GP (ISO/IEC 14496-12, 4.2): boxes of [size u32, type], or [1, type, size u64]; 0 is "to the end"."""
    at = 0
    for _ in range(_PARTS):
        if at + 8 > size:
            break
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return at
        if at + length > size:
            return at + length if kind in _MP4_MEDIA else at
        at += length
    return at


def _avi_end(file: BinaryIO, size: int) -> int:
    """AVI: chunks of [type, size u32 little-endian], padded to even, in one RIFF chunk or (OpenDML) several.

    Only the list that holds the media counts: writers err in the size of the RIFF chunk, and an index can be missed.
    """
    at = 0
    for _ in range(_PARTS):
        if at + 8 > size:
            break
        file.seek(at)
        head = file.read(12)
        kind, length = head[:4], int.from_bytes(head[4:8], "little")
        if kind == b"RIFF":
            at += 12  # its chunks follow, and after them the next RIFF chunk
            continue
        media = kind == b"LIST" and head[8:12] == b"movi"
        if media and length in (0, 0xFFFFFFFF):
            return at  # a recorder that never came back to fill the size in
        if at + 8 + length > size:
            return at + 8 + length if media else at
        at += 8 + length + length % 2
    return at


def _matroska_end(file: BinaryIO, size: int) -> int:
    """Matroska and WebM (RFC 8794): elements of [id, size, content]; a size of all ones is unknown.

    Live recordings leave the size of the segment unknown, some those of the clusters too: then the walk goes inside.
    """
    at = 0
    for _ in range(_PARTS):
        if at >= size:
            break
        file.seek(at)
        head = file.read(12)
        id_bytes = _vint_bytes(head)
        size_bytes = _vint_bytes(head[id_bytes:])
        if id_bytes > 4 or size_bytes > 8:
            return at  # not an element
        kind, number = head[:id_bytes], head[id_bytes : id_bytes + size_bytes]
        unknown = (1 << 7 * size_bytes) - 1
        length = int.from_bytes(number, "big") & unknown
        at += id_bytes + size_bytes
        if length == unknown and kind in (_SEGMENT, _CLUSTER):
            continue
        if length == unknown:
            return 0
        at += length
        if kind == _SEGMENT:
            return at
    return at


def _vint_bytes(head: bytes) -> int:
    """Bytes of the variable-length number that ``head`` begins with: one more than the zero bits it begins with."""
    return 9 - head[0].bit_length() if head else 1


def _asf_end(file: BinaryIO, size: int) -> int:
    """WMV and ASF: objects of [GUID, size u64 little-endian], first the header, then the media."""
    at = 0
    for _ in range(_PARTS):
        if at + 24 > size:
            break
        file.seek(at)
        head = file.read(24)
        length = int.from_bytes(head[16:24], "little")
        if length < 24:
            return at  # a live recording
        if at + length > size:
            return at + length if head[:16] in (_ASF_HEADER, _ASF_DATA) else at
        at += length
    return at


def _transport_end(file: BinaryIO, size: int) -> int:
    """MPEG transport streams: packets of 188 bytes that begin with 0x47, or of 192 with a time code before that."""
    for packet, sync in ((188, 0), (192, 4)):
        file.seek(0)
        head = file.read(3 * packet)
        if len(head) < 3 * packet or any(head[n * packet + sync] != 0x47 for n in range(3)):
            continue
        begun = size - size % packet
        file.seek(begun + sync)
        return begun + packet if file.read(1) == b"\x47" else begun
    return 0
