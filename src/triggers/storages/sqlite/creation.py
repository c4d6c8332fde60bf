"""Create the file of a database, and refuse places where SQLite is not safe."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from triggers.exceptions import StorageCorruptError, StorageError

#: File systems on which SQLite's locks, or the shared memory of WAL, are not reliable.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "9p",
        "fuse.sshfs",
        "fuse.s3fs",
        "glusterfs",
        "ceph",
        "lustre",
    }
)


def create_file(path: str) -> None:
    """Create an empty file that only its owner can read. A file that exists is not opened.

    Closing an existing file would release every lock that this process has on it.

    Raises:
        StorageError: the file cannot be created, or an existing file cannot be a SQLite file.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        message = f"{folder} is not a folder: create it first, for the file {Path(path).name}"
        raise StorageError(message)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError as error:
        if not Path(path).exists():
            message = f"{path} is a link to a file that does not exist: create the file, or remove the link"
            raise StorageError(message) from error
        if 0 < Path(path).stat().st_size < SMALLEST_FILE:
            message = f"{path} is too small to be a SQLite file: choose another path; nothing was changed"
            raise StorageCorruptError(message) from error
    except OSError as error:
        message = f"{path} cannot be created: {error.strerror}"
        raise StorageError(message) from error


#: The size of the smallest SQLite file in bytes. SQLite itself would overwrite a smaller file.
SMALLEST_FILE: Final = 512

#: How a list of mounts writes spaces and similar characters in the name of a folder.
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def check_file_system(path: str, mounts: str = "/proc/self/mounts") -> None:
    """Refuse a network file system, where the type of file systems is known (on Linux).

    Raises:
        StorageError: the path is on a network file system.
    """
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    found = [line.split()[1:3] for line in lines if line.count(" ") >= 2]  # noqa: PLR2004 - device, folder, kind
    folders = [(_ESCAPE.sub(lambda escaped: chr(int(escaped[1], 8)), folder), kind) for folder, kind in found]
    holding = [(folder, kind) for folder, kind in folders if Path(path).resolve().is_relative_to(folder)]
    folder, kind = max(holding, key=lambda mount: len(mount[0]), default=("", ""))
    if kind in NETWORK_FILE_SYSTEMS:
        message = (
            f"{path} is on {folder}, a network file system ({kind}), which can lose data: use a local disk"
        )
        raise StorageError(message)
