"""Writing a zip file that is the same byte for byte whenever its members are.

Every member is stored, not compressed, at a fixed alignment: it can be used in place through a
memory map, and no version of a compressor leaves a trace. Dates and attributes are fixed.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from . import zip_layout as layout

__all__ = ["ALIGNMENT", "ZipWriter"]

ALIGNMENT = 64
"""Every member starts at a multiple of this, in bytes; what IREE wants of its buffers."""

_DATE = (1 << 5) | 1  # 1980-01-01, the earliest a zip file knows
_ATTRIBUTES = 0o100644 << 16
_MADE_BY = (3 << 8) | 20  # Unix
_PADDING_EXTRA = 0xD935  # the kind that Android's zipalign uses for the same purpose


@dataclass(frozen=True, kw_only=True)
class _Written:
    name: bytes
    crc: int
    size: int
    header: int
    wide: bool


class ZipWriter:
    """Writes members one after the other to a seekable file; ``finish`` ends the zip file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: list[_Written] = []

    def add(self, name: str, chunks: Iterator[bytes | memoryview], size: int) -> None:
        """Add a member of ``size`` bytes; the chunks must hold exactly so many."""
        header = self._file.tell()
        # The checksum is known only after the bytes, so the header is written twice.
        wide = size >= layout.MAX32
        self._file.write(self._local(name, 0, size, header, wide))
        crc = written = 0
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
            written += len(chunk)
            self._file.write(chunk)
        if written != size:
            raise OSError(f"{name} changed while it was copied")
        end = self._file.tell()
        self._file.seek(header)
        self._file.write(self._local(name, crc, size, header, wide))
        self._file.seek(end)
        self._members.append(
            _Written(name=name.encode(), crc=crc, size=size, header=header, wide=wide)
        )

    def _local(self, name: str, crc: int, size: int, header: int, wide: bool) -> bytes:
        extra = b""
        if wide:
            extra = layout.EXTRA.pack(layout.ZIP64_EXTRA, 16) + size.to_bytes(8, "little") * 2
        start = header + layout.LOCAL.size + len(name) + len(extra) + layout.EXTRA.size
        padding = bytes(-start % ALIGNMENT)
        extra += layout.EXTRA.pack(_PADDING_EXTRA, len(padding)) + padding
        field = layout.MAX32 if wide else size
        return (
            layout.LOCAL.pack(
                layout.LOCAL_SIGNATURE,
                45 if wide else 20,
                0,
                layout.STORED,
                0,
                _DATE,
                crc,
                field,
                field,
                len(name),
                len(extra),
            )
            + name.encode()
            + extra
        )

    def finish(self) -> None:
        """Write the central directory and the end record."""
        start = self._file.tell()
        for member in self._members:
            self._file.write(_central(member))
        end = self._file.tell()
        count, size = len(self._members), end - start
        if count >= layout.MAX16 or start >= layout.MAX32 or size >= layout.MAX32:
            self._file.write(
                layout.END64.pack(
                    layout.END64_SIGNATURE,
                    layout.END64.size - 12,
                    45,
                    45,
                    0,
                    0,
                    count,
                    count,
                    size,
                    start,
                )
                + layout.END64_LOCATOR.pack(layout.END64_LOCATOR_SIGNATURE, 0, end, 1)
            )
        short = min(count, layout.MAX16)
        self._file.write(
            layout.END.pack(
                layout.END_SIGNATURE,
                0,
                0,
                short,
                short,
                min(size, layout.MAX32),
                min(start, layout.MAX32),
                0,
            )
        )
        self._file.flush()
        os.fsync(self._file.fileno())


def _central(member: _Written) -> bytes:
    wide = [member.size, member.size] if member.wide else []
    if member.header >= layout.MAX32:
        wide.append(member.header)
    extra = b"".join(value.to_bytes(8, "little") for value in wide)
    if extra:
        extra = layout.EXTRA.pack(layout.ZIP64_EXTRA, len(extra)) + extra
    size = layout.MAX32 if member.wide else member.size
    return (
        layout.CENTRAL.pack(
            layout.CENTRAL_SIGNATURE,
            _MADE_BY,
            45 if wide else 20,
            0,
            layout.STORED,
            0,
            _DATE,
            member.crc,
            size,
            size,
            len(member.name),
            len(extra),
            0,
            0,
            0,
            _ATTRIBUTES,
            min(member.header, layout.MAX32),
        )
        + member.name
        + extra
    )
