"""The records of a zip file, as the reader and the writer both use them (APPNOTE 6.3)."""

from __future__ import annotations

import struct

__all__ = [
    "CENTRAL",
    "CENTRAL_SIGNATURE",
    "DEFLATED",
    "END",
    "END64",
    "END64_LOCATOR",
    "END64_LOCATOR_SIGNATURE",
    "END64_SIGNATURE",
    "END_SIGNATURE",
    "EXTRA",
    "LOCAL",
    "LOCAL_SIGNATURE",
    "MAX16",
    "MAX32",
    "STORED",
    "ZIP64_EXTRA",
]

STORED = 0
DEFLATED = 8
MAX16 = 0xFFFF
MAX32 = 0xFFFFFFFF
ZIP64_EXTRA = 1
"""The extra field that holds the sizes and the offset that do not fit 32 bits."""

# signature, version needed, flags, method, time, date, CRC-32, compressed size, size,
# name length, extra length
LOCAL = struct.Struct("<4s5H3L2H")
LOCAL_SIGNATURE = b"PK\x03\x04"

# signature, version made by, version needed, flags, method, time, date, CRC-32, compressed
# size, size, name length, extra length, comment length, disk, internal and external
# attributes, offset of the local header
CENTRAL = struct.Struct("<4s6H3L5H2L")
CENTRAL_SIGNATURE = b"PK\x01\x02"

# signature, disk, disk of the directory, entries on it, entries, directory size, directory
# offset, comment length
END = struct.Struct("<4s4H2LH")
END_SIGNATURE = b"PK\x05\x06"

# signature, size of the rest, version made by, version needed, disk, disk of the directory,
# entries on it, entries, directory size, directory offset
END64 = struct.Struct("<4sQ2H2L4Q")
END64_SIGNATURE = b"PK\x06\x06"

# signature, disk, offset of END64, number of disks
END64_LOCATOR = struct.Struct("<4sLQL")
END64_LOCATOR_SIGNATURE = b"PK\x06\x07"

# kind, size of what follows
EXTRA = struct.Struct("<2H")
