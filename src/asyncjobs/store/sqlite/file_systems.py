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
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
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
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return None
    for line in mounts.splitlines():
        fields = line.split()  # man 5 proc_pid_mountinfo
        if fields[2] == number:
            return fields[fields.index("-") + 1]
    return None
