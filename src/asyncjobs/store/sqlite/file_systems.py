"""What kind of file system a database file is on: SQLite's log and the locks of engines need one of the machine's own.

Over a network two machines would each see their own half of the log, and of the locks perhaps nothing
(https://sqlite.org/wal.html, https://sqlite.org/faq.html#q5).
"""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb2",
        "smb3",
        "smbfs",
    }
)


def kind_of(folder: Path) -> str | None:
    """Return the kind of file system that a folder is on (`ext4`), or None where the kernel does not say."""
    try:
        device = folder.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    for line in mounts.split(b"\n"):
        fields = line.split(b" ")  # man 5 proc_pid_mountinfo
        if len(fields) > 2 and fields[2] == number and b"-" in fields:
            return fields[fields.index(b"-") + 1].decode(errors="replace")
    return None
