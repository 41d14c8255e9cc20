#!/usr/bin/env python3
"""Lays the tree that the container image of one architecture is made of: DIR/ARCH/files and DIR/ARCH/upgrade.

In it are the binary, the C library's files that it is linked with (of this machine, which therefore must be of the same
architecture; none for a static binary), the certificates of public authorities, and a user who is not root.
"""

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys

MACHINES = {"amd64": 62, "arm64": 183}


class Refused(Exception):
    """The tree cannot be laid."""


def read_header(path):
    """Returns an ELF file's machine and whether it asks for a loader."""
    with open(path, "rb") as file:
        data = file.read(1 << 16)
    if data[:6] != b"\x7fELF\x02\x01":
        raise Refused(f"{path} is no 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", data, 0x12)
    (offset,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    kinds = [struct.unpack_from("<I", data, offset + i * size)[0] for i in range(count)]
    return machine, 3 in kinds


def linked_files(path):
    """Returns the loader and the libraries that a binary is linked with, as this machine finds them."""
    said = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    if "not found" in said:
        raise Refused(f"a library is missing:\n{said}")
    # `libc.so.6 => /lib/.../libc.so.6 (0x...)`, and the loader alone: `/lib64/ld-linux-x86-64.so.2 (0x...)`
    return re.findall(r"(?:=> )?(/\S+) \(0x", said)


def lay_tree(binary, arch, certificates, folder):
    """Lays the tree; an old one is removed."""
    machine, dynamic = read_header(binary)
    if machine != MACHINES[arch]:
        raise Refused(f"{binary} is for ELF machine {machine}, and {arch} is {MACHINES[arch]}")
    with open(certificates, encoding="ascii") as file:
        count = file.read().count("-----BEGIN CERTIFICATE-----")
    if count < 50:
        raise Refused(f"{certificates} has only {count} certificates")
    own = os.path.join(folder, arch)
    shutil.rmtree(own, ignore_errors=True)
    files = {"usr/bin/eksup": binary, "etc/ssl/certs/ca-certificates.crt": certificates}
    for path in linked_files(binary) if dynamic else []:
        files[path.lstrip("/")] = path
    for place, source in files.items():
        target = os.path.join(own, "files", place)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(os.path.realpath(source), target)
        os.chmod(target, 0o644 if place.startswith("etc/") else 0o755)
    texts = {
        "passwd": "eksup:x:65532:65532:eksup:/upgrade:/sbin/nologin\n",
        "group": "eksup:x:65532:\n",
        # Without it, the GNU C library would ask the name server before the hosts file.
        "nsswitch.conf": "hosts: files dns\n",
    }
    for name, text in texts.items():
        with open(os.path.join(own, "files/etc", name), "w", encoding="ascii") as file:
            file.write(text)
    os.makedirs(os.path.join(own, "upgrade"))
    return sorted(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--arch", required=True, choices=sorted(MACHINES))
    parser.add_argument("--certificates", default="/etc/ssl/certs/ca-certificates.crt")
    parser.add_argument("folder")
    arguments = parser.parse_args()
    try:
        files = lay_tree(arguments.binary, arguments.arch, arguments.certificates, arguments.folder)
    except Refused as refused:
        sys.exit(f"error: {refused}")
    print(f"{arguments.arch}: {', '.join(files)}")


if __name__ == "__main__":
    main()
