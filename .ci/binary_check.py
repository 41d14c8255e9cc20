#!/usr/bin/env python3
"""Holds a released binary to what it promises: it needs no newer C library than --glibc, and has at most --megabytes.

The versions are read from the ELF section .gnu.version_r of the binary itself, so nothing has to be run and no tool is
needed. A statically linked binary needs none.
"""

import argparse
import os
import re
import struct
import sys


def sections(data):
    """Returns the sections of a 64-bit little-endian ELF file: name, type, offset, size, link and number of entries."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF file")
    (offset,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    raw = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size) for i in range(count)]
    base = raw[names][4]
    return [(text(data, base + s[0]), s[1], s[4], s[5], s[6], s[7]) for s in raw]


def text(data, at):
    """Returns the string that begins at an offset and ends with a zero byte."""
    return data[at : data.index(b"\0", at)].decode()


def needed_versions(data):
    """Returns the symbol versions that a binary needs, such as (`libc.so.6`, `GLIBC_2.34`)."""
    all_sections = sections(data)
    needed = []
    for name, _, at, _, link, count in all_sections:
        if name != ".gnu.version_r":
            continue
        strings = all_sections[link][2]
        # A list of libraries, each with a list of versions; every entry says how far the next one is.
        for _ in range(count):
            _, versions, library, first, following = struct.unpack_from("<HHIII", data, at)
            inner = at + first
            for _ in range(versions):
                _, _, _, version, after = struct.unpack_from("<IHHII", data, inner)
                needed.append((text(data, strings + library), text(data, strings + version)))
                inner += after
            at += following
    return needed


def too_new(needed, bound):
    """Returns those of the needed versions that a C library of version `bound` does not have."""

    def newer(version):
        number = re.fullmatch(r"GLIBC_(\d+(?:\.\d+)*)", version)
        if number:
            return tuple(map(int, number[1].split("."))) > bound
        # GLIBC_ABI_DT_RELR and the like: a library either has it or not, and an old one does not.
        return version.startswith("GLIBC_")

    return [(library, version) for library, version in needed if newer(version)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--glibc", required=True, help="such as 2.34")
    parser.add_argument("--megabytes", required=True, type=float)
    arguments = parser.parse_args()
    with open(arguments.binary, "rb") as file:
        data = file.read()
    bound = tuple(map(int, arguments.glibc.split(".")))
    needed = needed_versions(data)
    wrong = [f"{library} {version} is newer than {arguments.glibc}" for library, version in too_new(needed, bound)]
    megabytes = os.path.getsize(arguments.binary) / 1e6
    if megabytes > arguments.megabytes:
        wrong.append(f"{megabytes:.1f} MB are more than {arguments.megabytes:g}")
    versions = sorted({version for _, version in needed})
    print(f"{arguments.binary}: {megabytes:.1f} MB, needs {', '.join(versions) or 'no shared library'}")
    for line in wrong:
        print(f"error: {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
