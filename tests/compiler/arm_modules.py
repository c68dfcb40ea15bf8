"""The machine code in a compiled module for 64-bit ARM: its dispatches, and their loops."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["dispatch_code", "innermost_loops"]

_RELOCATIONS, _CODE = 4, 6  # SHT_RELA; SHF_ALLOC and SHF_EXECINSTR
_RELATIVE = 0x403  # R_AARCH64_RELATIVE
_NAMES_AFTER_FUNCTIONS = 32  # in IREE's iree_hal_executable_export_table_v0_t

# Conditional branches: mask, bits under the mask, and how many bits from the sixth on say where.
_BRANCHES = (
    (0xFF000010, 0x54000000, 19),  # B.cond
    (0x7E000000, 0x34000000, 19),  # CBZ, CBNZ
    (0x7E000000, 0x36000000, 14),  # TBZ, TBNZ
)


def dispatch_code(module: Path) -> dict[str, list[int]]:
    """The instructions of each dispatch in a .vmfb, each a word of 32 bits.

    There are no symbols; the functions and their names are where the runtime finds them, in the
    library's table of exports. What points is filled in by relocations.
    """
    with zipfile.ZipFile(module) as archive:
        (library,) = (name for name in archive.namelist() if name.endswith(".so"))
        elf = archive.read(library)
    points: dict[int, int] = {}
    start, code, image = 0, b"", bytearray()
    for kind, flags, address, content in _sections(elf):
        if address:
            image.extend(bytes(max(0, address + len(content) - len(image))))
            image[address : address + len(content)] = content
        if kind == _RELOCATIONS:
            for place, relocation, value in struct.iter_unpack("<QQQ", content):
                assert relocation == _RELATIVE
                points[place] = value
        if flags == _CODE:
            start, code = address, content
    inside = range(start, start + len(code))
    (table,) = (place for place, to in points.items() if points.get(to) in inside)
    functions, names = points[table], points[table + _NAMES_AFTER_FUNCTIONS]
    found: dict[str, int] = {}
    while points.get(functions) in inside:
        name = points[names]
        found[image[name : image.index(0, name)].decode()] = points[functions] - start
        functions, names = functions + 8, names + 8
    ends = [*sorted(found.values())[1:], len(code)]
    end_of = dict(zip(sorted(found.values()), ends, strict=True))
    return {
        name: [word for (word,) in struct.iter_unpack("<I", code[first : end_of[first]])]
        for name, first in found.items()
    }


def _sections(elf: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, address and content of each section that has a content."""
    (headers,) = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<2H", elf, 58)
    for place in range(headers, headers + size * count, size):
        _, kind, flags, address, offset, length = struct.unpack_from("<2I4Q", elf, place)
        if kind != 8:  # SHT_NOBITS
            yield kind, flags, address, elf[offset : offset + length]


def innermost_loops(words: list[int]) -> list[list[int]]:
    """The instructions of each loop that holds no other, its branch back to the start included."""
    loops = [
        (at + jump, at) for at, word in enumerate(words) if (jump := _conditional_jump(word)) < 0
    ]
    return [
        words[first : last + 1]
        for first, last in loops
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in loops)
    ]


def _conditional_jump(word: int) -> int:
    """By how many instructions a conditional branch jumps; 0 for anything else."""
    for mask, bits, width in _BRANCHES:
        if word & mask == bits:
            jump = word >> 5 & (1 << width) - 1
            return jump - (jump >> width - 1 << width)
    return 0
