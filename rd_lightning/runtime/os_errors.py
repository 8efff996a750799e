"""An operating system's error as a line: what, where, what to do."""

from __future__ import annotations

import errno
import os
import re

_FULL = "make room there, or choose another disk (the setting out; TMPDIR for temporary files)"
_NO_TEMPORARY = "make room in one of them, or name another folder: TMPDIR"
_FORBIDDEN = "choose a folder that you may write to, or change its permissions"
_NO_FOLDER = "a file is where a folder is needed; choose another path"
REMEDIES = {
    errno.ENOSPC: _FULL,
    getattr(errno, "EDQUOT", errno.ENOSPC): _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: "a folder is where a file is needed; choose another path",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EIO: "the disk or the network to it fails; choose another, then run the command again",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}


def explained(error: OSError) -> str:
    """Path, what the system says, and what to do."""
    if error.errno is None:
        return str(error) or type(error).__name__
    if "No usable temporary directory" in str(error):  # each is full, or not to be written to
        return f"{error.strerror}; {_NO_TEMPORARY}"
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    remedy = REMEDIES.get(error.errno)
    return f"{where}{error.strerror}" + (f"; {remedy}" if remedy else "")


def from_text(text: str, path: str | os.PathLike) -> OSError:
    """Of a library that gives the system's error in words: ``... (os error 28)``."""
    found = re.search(r"os error (\d+)", text)
    if found is None:
        return OSError(f"{os.fspath(path)} cannot be written: {text}")
    number = int(found[1])
    return OSError(number, os.strerror(number), os.fspath(path))
