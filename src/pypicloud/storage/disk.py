"""Writing into a directory tree so that a crash, a full disk or a second writer leaves nothing half done.

Everything is written under a temporary name first, flushed to the disk, and then renamed or linked into
place; whoever changes a project's directory holds its lock meanwhile. The lock is on the directory itself,
so it works across processes and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from typing import Final

from pypicloud.errors import not_written

#: Temporary files begin with a dot and end so that 1.3.12 takes them for facts, not for packages (compat.md 2.1).
TEMPORARY_PREFIX: Final = ".upload-"
TEMPORARY_SUFFIX: Final = ".meta"

#: How long ago, in seconds, a temporary file must have been written to for its writer to be certainly gone.
ABANDONED: Final = 60 * 60

#: What file systems answer that know no hard links, and those that lock files only, not directories (NFS).
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_NO_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Say in our own words why the operating system would not write."""
    try:
        yield
    except OSError as error:
        raise not_written(error) from error


@contextlib.contextmanager
def temporary(directory: str, blocks: Iterable[bytes]) -> Iterator[str]:
    """The path of a new file that holds these bytes, safely on the disk; removed in the end if it is still there."""
    path = _temporary_path(directory)
    try:
        with writing():
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for block in blocks:
                with writing():
                    _write(file, block)
            with writing():
                os.fsync(file)
        finally:
            os.close(file)
        yield path
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def second_name(directory: str, source: str) -> str | None:
    """Another, temporary name for a file; None if the file system knows no such thing."""
    path = _temporary_path(directory)
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return None
    return path


def _temporary_path(directory: str) -> str:
    return os.path.join(directory, f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def _write(file: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(file, view) :]


def is_temporary(name: str) -> bool:
    """Whether this is the name of a temporary file of ours."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def remove_abandoned(directory: str) -> None:
    """Remove temporary files whose writers were killed long ago."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - ABANDONED:
                        os.unlink(entry.path)


@contextlib.contextmanager
def locked(directory: str, *, make: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold a directory's lock, alone or with others that share it.

    The directory may vanish while we wait: then it is made again (``make``), or FileNotFoundError is
    raised. A file system that cannot lock directories is used without: whoever needs more than
    :func:`link` gives then has the cache's lock.
    """
    while True:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
        try:
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if make:
                continue
            raise
        try:
            _lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if _is_at(handle, directory):
                yield
                return
        finally:
            os.close(handle)


def _lock(handle: int, how: int) -> None:
    try:
        fcntl.flock(handle, how)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is_at(handle: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def link(source: str, path: str) -> None:
    """Give a file its final name; raises FileExistsError if there is one of that name already."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without hard links the directory's lock alone keeps another file from being replaced.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(source, path)


def set_mode(path: str, *, like: str) -> None:
    """Give a file the permissions of another."""
    mode = stat.S_IMODE(os.stat(like).st_mode)
    if stat.S_IMODE(os.stat(path).st_mode) != mode:
        os.chmod(path, mode)


def set_mtime(path: str, nanoseconds: int) -> None:
    """Set the time of a file's last change, in nanoseconds since 1970."""
    os.utime(path, ns=(nanoseconds, nanoseconds))


def remove(path: str) -> None:
    """Remove a file, if it is there; one with a name that is too long is not."""
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
            raise


def remove_empty(directory: str) -> None:
    """Remove a directory, if it is there and empty."""
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST}:
            raise


def sync(path: str) -> None:
    """Flush a file, or a directory's list of names, to the disk, if it is there."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str) -> bytes:
    """The bytes of a small file, with as few system calls as possible."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, os.fstat(handle).st_size)
    finally:
        os.close(handle)
