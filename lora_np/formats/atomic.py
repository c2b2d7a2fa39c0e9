"""Replace a file or folder atomically: at any time, either the old version or the new one exists.

New content is written to a temporary folder next to the old content, flushed to disk, and renamed. A new folder is read
back before the rename. A folder is locked while a process writes to it, and the operating system releases the lock when
that process ends. The next process to get the lock can therefore safely remove any temporary files that it finds.
"""

import ctypes
import os
import shutil
import sys
import warnings
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory

from .paths import check_target

TEMPORARY = {"prefix": ".lora_np-", "suffix": ".tmp"}


def write_atomically(path, data):
    """Replace a file's content with bytes or an iterable of bytes. Any OSError names `path`, not a temporary file."""
    with replacing(path) as temporary:
        write_pieces(temporary, data)


@contextmanager
def replacing(path):
    """Yield a temporary path. When the `with` block ends, the file at the temporary path replaces `path`."""
    path = Path(path)
    with temporary_folder(path.parent) as folder, naming(path):
        yield folder / path.name
        flush(folder / path.name)
        os.replace(folder / path.name, path)


def write_pieces(path, data):
    """Write bytes, or an iterable of bytes, to a file."""
    with open(path, "wb") as file:
        for piece in [data] if isinstance(data, bytes) else data:
            file.write(piece)


def flush(path):
    """Wait until a file's content is on disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


@contextmanager
def naming(path):
    """Turn an OSError into one that names `path` instead of the temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def locked(folder):
    """Wait until no other process writes to a folder, and lock it until the `with` block ends."""
    try:
        import fcntl
    except ImportError:  # Windows, which cannot lock a folder
        from filelock import FileLock

        with FileLock(folder / ".lora_np.lock"):
            yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network drives do not support locks; a rename is still atomic there
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def only_process(folder):
    """Reserve a folder for a long job; the reservation lasts until the `with` block ends.

    Raises ValueError if another process has reserved the folder. The lock is a file next to the folder, and is removed
    when the `with` block ends.
    """
    folder = Path(os.path.realpath(folder))
    path = folder.parent / f"{TEMPORARY['prefix']}{folder.name}.lock"
    busy = ValueError(f"out: another process is writing to {folder}; wait until it finishes, or choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        from filelock import FileLock, Timeout

        try:
            with FileLock(path, timeout=0):
                yield
        except Timeout:
            raise busy from None
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError:  # some network drives do not support locks
            pass
        if version(path) != version(file.fileno()):  # another process has just removed the file
            raise busy
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent):
    """Lock a folder, delete killed processes' temporary files, and yield the path of a temporary folder inside it."""
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent):
        for path in parent.glob(f"{TEMPORARY['prefix']}*{TEMPORARY['suffix']}"):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with TemporaryDirectory(**TEMPORARY, dir=parent, ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)


def write_folder(folder, files, check=None, carry=()):
    """Replace a folder with a new one that contains these files.

    Parameters
    ----------
    folder : the folder; its parents are created if needed
    files : dict of name -> bytes
    check : function (path of the new folder) that reads this folder back; called before the old folder is replaced
    carry : names of files and folders to copy from the old folder

    Raises
    ------
    ValueError
        If the folder has files that this package does not write; see `check_target`.
    OSError
        If the new folder cannot be written; the old folder is then unchanged.
    """
    folder = Path(os.path.realpath(folder))
    recover(folder)
    with temporary_folder(folder.parent) as temporary:
        check_target(folder, "folder", carry=carry, force=True)
        new = temporary / folder.name  # after a swap, this is the old folder; removed at the end of the block
        new.mkdir()
        for name, data in files.items():
            with naming(folder / name):
                (new / name).parent.mkdir(exist_ok=True)
                write_pieces(new / name, data)
                flush(new / name)
        for path in [folder / name for name in carry if (folder / name).exists()]:
            with naming(path):
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, new / path.name)
        if check is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings about fields that have no effect
                check(new)
        if folder.exists():
            os.chmod(new, folder.stat().st_mode)
        put_in_place(new, folder)


def put_in_place(new, folder):
    """Move a new folder to the old folder's path. The caller must hold the lock and remove anything left at `new`."""
    if folder.exists() and not exchange(new, folder):
        shutil.rmtree(aside(folder), ignore_errors=True)  # left by a process that was killed after both renames
        os.rename(folder, aside(folder))  # until the next rename, the folder does not exist; see `recover`
    if not folder.exists():
        os.rename(new, folder)
    shutil.rmtree(aside(folder), ignore_errors=True)


def exchange(a, b):
    """Swap two folders atomically; return False if the system or the drive cannot do so."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        a, b = os.fsencode(a), os.fsencode(b)
        if sys.platform == "darwin":
            return libc.renamex_np(a, b, 2) == 0  # RENAME_SWAP
        return libc.renameat2(-100, a, -100, b, 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
    except (AttributeError, OSError, TypeError):  # no such function; TypeError: Windows
        return False


def aside(folder):
    """The temporary path of the old folder during its replacement, on systems that cannot swap two folders."""
    folder = Path(os.path.realpath(folder))
    return folder.parent / f"{TEMPORARY['prefix']}{folder.name}.old"


def recover(folder):
    """Restore a folder if its replacement was interrupted after the old folder had been moved to `aside`."""
    folder = Path(os.path.realpath(folder))
    if not folder.exists() and aside(folder).exists():
        with locked(folder.parent):
            if not folder.exists() and aside(folder).exists():
                os.rename(aside(folder), folder)


def of_one_version(read):
    """Decorate a function whose first argument is a folder, so that it never reads a mixture of two versions.

    If the folder is replaced during the call, the function is called again.
    """

    @wraps(read)
    def call(folder, *args, **kwargs):
        while True:
            recover(folder)
            before, error = version(folder), None
            try:
                result = read(folder, *args, **kwargs)
            except (OSError, ValueError) as raised:
                error = raised
            is_between_renames = before is None and aside(folder).exists()
            if version(folder) == before and not is_between_renames:
                if error is not None:
                    raise error
                return result

    return call


def version(folder):
    """An identifier that changes when a folder is replaced; None if there is no folder."""
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
