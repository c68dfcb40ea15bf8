"""A bundle in one zip file, read through one memory map.

The file may come from anybody, so nothing in it is believed: the end record, the central
directory and every local header must agree, members must not overlap, and a compressed member
is unpacked only up to its declared size.
"""

from __future__ import annotations

import mmap
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import BundleError
from . import zip_layout as layout
from .names import MANIFEST_NAME, MAX_FILES, check_name, check_names

__all__ = ["ZipSource"]

_AGAIN = "copy or build the bundle again"
_DISTRUST = "do not trust this bundle"
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_DATA_DESCRIPTOR = 1 << 3
_KNOWN_FLAGS = 0b110 | _DATA_DESCRIPTOR | 1 << 11
_MAX_RATIO = 100
_SMALL = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int

    def check(self) -> None:
        """Raise BundleError if its own numbers already speak against it."""
        if self.flags & _ENCRYPTED:
            raise BundleError(f"{self.name} is encrypted, which canao does not read: {_AGAIN}")
        if self.flags & ~_KNOWN_FLAGS or self.method not in (layout.STORED, layout.DEFLATED):
            raise BundleError(
                f"{self.name} is compressed by a method (number {self.method}) "
                f"that canao does not read: {_AGAIN}"
            )
        if self.method == layout.STORED and self.packed != self.size:
            raise BundleError(f"{self.name} declares two sizes: {_DISTRUST}")
        if self.size > max(_SMALL, _MAX_RATIO * self.packed):
            raise BundleError(
                f"{self.name} would unpack to more than {_MAX_RATIO} times its size: {_DISTRUST}"
            )


class ZipSource:
    """The files of a zip bundle. ``sizes`` maps each name to its size in bytes.

    Raises BundleError if the file is not a sound zip file of plain files.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(2) != b"PK":
                raise BundleError("it is neither a directory nor a zip file")
            # The map lives as long as any view of it, and the file may be replaced meanwhile.
            self._map = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        start, end, count = _directory_bounds(self._map)
        members = list(_directory(self._map[start:end], count))
        check_names(member.name for member in members)
        self._members = {member.name: member for member in members}
        self._starts = _data_starts(self._map, members, start)
        self.sizes = {member.name: member.size for member in members}

    def view(self, name: str) -> memoryview:
        """Return the bytes of a member: the very bytes of the file if it is stored."""
        member = self._members[name]
        start = self._starts[name]
        data = self._map[start : start + member.packed]
        if member.method == layout.DEFLATED:
            data = memoryview(_inflate(data, member))
        # No hash guards the manifest, so the zip file's own checksum is all there is.
        if name == MANIFEST_NAME and zlib.crc32(data) != member.crc:
            raise BundleError(f"{name} does not match its checksum: {_AGAIN}")
        return data


def _inflate(data: memoryview, member: _Member) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than declared is enough to see that there is more.
        result = unpacker.decompress(data, member.size + 1)
        sound = unpacker.eof and not unpacker.unused_data
    except zlib.error:
        raise BundleError(f"{member.name} cannot be unpacked: {_AGAIN}") from None
    if len(result) != member.size or not sound:
        raise BundleError(f"{member.name} does not unpack to its declared size: {_DISTRUST}")
    return result


def _directory_bounds(data: memoryview) -> tuple[int, int, int]:
    """Find the central directory; return its start, its end and its number of entries."""
    tail_start = max(0, len(data) - layout.END.size - layout.MAX16)
    tail = bytes(data[tail_start:])
    position = tail.rfind(layout.END_SIGNATURE)
    if position < 0 or len(tail) - position < layout.END.size:
        raise BundleError(f"it is truncated, the end of the zip file is missing: {_AGAIN}")
    _, disk, first_disk, here, count, size, start, comment = layout.END.unpack_from(tail, position)
    if position + layout.END.size + comment != len(tail):
        raise BundleError(f"it does not end where its zip end record says: {_AGAIN}")
    end = tail_start + position
    if layout.MAX16 in (here, count) or layout.MAX32 in (size, start):
        end, disk, first_disk, here, count, size, start = _end64(data, end)
    if disk or first_disk or here != count or start + size != end:
        raise BundleError(f"its zip end record contradicts the file: {_AGAIN}")
    if count > 2 * MAX_FILES:  # directories have entries of their own
        raise BundleError(f"it holds {count} files, more than {MAX_FILES}: {_DISTRUST}")
    return start, end, count


def _end64(data: memoryview, end: int) -> tuple[int, int, int, int, int, int, int]:
    fault = BundleError(f"its 64-bit zip end record is damaged: {_AGAIN}")
    locator = end - layout.END64_LOCATOR.size
    if locator < layout.END64.size:
        raise fault
    signature, _, position, _ = layout.END64_LOCATOR.unpack_from(data, locator)
    if signature != layout.END64_LOCATOR_SIGNATURE or position != locator - layout.END64.size:
        raise fault
    record = layout.END64.unpack_from(data, position)
    if record[0] != layout.END64_SIGNATURE or record[1] != layout.END64.size - 12:
        raise fault
    return (position, *record[4:])


def _directory(data: memoryview, count: int) -> Iterator[_Member]:
    """Read the central directory, which must be exactly ``data``; skip plain directories."""
    fault = BundleError(f"its zip directory is damaged: {_AGAIN}")
    position = 0
    for _ in range(count):
        if len(data) - position < layout.CENTRAL.size:
            raise fault
        record = layout.CENTRAL.unpack_from(data, position)
        name_start = position + layout.CENTRAL.size
        extra_start = name_start + record[10]
        position = extra_start + record[11] + record[12]
        if record[0] != layout.CENTRAL_SIGNATURE or position > len(data):
            raise fault
        # Names are ASCII; other bytes become characters that check_name refuses.
        name = str(data[name_start:extra_start], "latin-1")
        packed, size, header = _sizes64(
            bytes(data[extra_start : extra_start + record[11]]), record, fault
        )
        check_name(name.removesuffix("/"))
        kind = stat.S_IFMT(record[15] >> 16)
        if name.endswith("/"):
            if size or kind not in (0, stat.S_IFDIR):
                raise BundleError(f"the directory {name} has content: {_DISTRUST}")
            continue
        if kind not in (0, stat.S_IFREG):
            raise BundleError(f"{name} is a link or a special file: {_DISTRUST}")
        member = _Member(
            name=name,
            flags=record[3],
            method=record[4],
            crc=record[7],
            packed=packed,
            size=size,
            header=header,
        )
        member.check()
        yield member
    if position != len(data):
        raise fault


def _sizes64(extra: bytes, record: tuple[int, ...], fault: BundleError) -> tuple[int, int, int]:
    """Return packed size, size and offset; those that are all ones stand in the extra field."""
    values = {"size": record[9], "packed": record[8], "header": record[16]}
    wanted = [key for key, value in values.items() if value == layout.MAX32]
    position = 0
    while wanted:
        if len(extra) - position < layout.EXTRA.size:
            raise fault
        kind, length = layout.EXTRA.unpack_from(extra, position)
        position += layout.EXTRA.size
        if kind == layout.ZIP64_EXTRA:
            if length < 8 * len(wanted) or len(extra) - position < length:
                raise fault
            for index, key in enumerate(wanted):
                at = position + 8 * index
                values[key] = int.from_bytes(extra[at : at + 8], "little")
            break
        position += length
    return values["packed"], values["size"], values["header"]


def _data_starts(data: memoryview, members: list[_Member], limit: int) -> dict[str, int]:
    """Check each local header against the directory; return where each member's bytes start."""
    starts: dict[str, int] = {}
    free = 0
    for member in sorted(members, key=lambda item: item.header):
        fault = BundleError(f"{member.name} contradicts the zip directory: {_DISTRUST}")
        # Members one over another are how a small file unpacks to a huge one.
        if member.header < free or member.header + layout.LOCAL.size > limit:
            raise fault
        record = layout.LOCAL.unpack_from(data, member.header)
        name_start = member.header + layout.LOCAL.size
        start = name_start + record[9] + record[10]
        free = start + member.packed
        if (
            record[0] != layout.LOCAL_SIGNATURE
            or free > limit
            or (record[2], record[3]) != (member.flags, member.method)
            or str(data[name_start : name_start + record[9]], "latin-1") != member.name
        ):
            raise fault
        # Where a data descriptor follows the member, the header has zeros here.
        described = (member.crc, min(member.packed, layout.MAX32), min(member.size, layout.MAX32))
        for local, central in zip(record[6:9], described, strict=True):
            deferred = member.flags & _DATA_DESCRIPTOR and local == 0
            if local not in (central, layout.MAX32) and not deferred:
                raise fault
        starts[member.name] = start
    return starts
