"""Checks of the places that are written to, before a long job: nothing that is read, or is not ours, is replaced."""

import os
from pathlib import Path

from ..data.texts import kind_of

# All that is ever written into the folder of a model, an adapter or a task. Other files in it are the user's.
MODEL_FILES = """model.safetensors model.gguf config.json generation_config.json adapter.safetensors adapter.json task.json
confusion.png adapter_model.safetensors adapter_config.json tokenizer.json tokenizer_config.json special_tokens_map.json
added_tokens.json vocab.json merges.txt chat_template.jinja training_log.json .DS_Store""".split()


def check_folder(path, argument, sources=()):
    """Check before a long job that a folder, which need not exist yet, can be written to.

    Raises ValueError, which names the caller's `argument`, if it cannot or it is or holds one of the `sources`: files
    and folders that are read and must not be overwritten.
    """
    path = Path(path)
    existing = next(folder for folder in (path, *path.absolute().parents) if is_there(folder))
    if not existing.exists():
        raise ValueError(f"{argument}: {existing} is a link that leads nowhere, expected a folder")
    if not existing.is_dir():
        raise ValueError(f"{argument}: {existing} is {kind_of(existing)}, expected a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{argument}: {existing} cannot be written to")
    for source in sources:
        if is_in(source, path):
            what = "is" if is_in(path, source) else f"holds {source}, which is"
            raise ValueError(f"{argument}: {path} {what} also read from; expected another folder")


def check_target(path, argument, sources=(), carry=()):
    """Check before a long job that a folder can be replaced as a whole; see `check_folder` and `write_folder`.

    Raises ValueError also if it has files that this package does not write, is a drive's own folder or the current one.
    """
    check_folder(path, argument, sources)
    path = Path(os.path.realpath(path))
    if path.exists() and not os.access(path.parent, os.W_OK):
        raise ValueError(f"{argument}: {path.parent} cannot be written to, and a new {path.name} is made there first")
    if path == Path.cwd():  # whose shell would be left in the old one
        raise ValueError(f"{argument}: {path} is the current folder, which cannot be replaced; name another one")
    others = sorted(set(os.listdir(path)) - {*MODEL_FILES, *carry}) if path.exists() else []
    if others:
        expected = "expected a new folder, or one with nothing except a model"
        raise ValueError(f"{argument}: {path} has other files, such as {others[0]!r}; {expected}")
    if path.is_mount():
        raise ValueError(f"{argument}: {path} is a drive's own folder, which cannot be replaced; name one inside it")


def check_file(path, argument, sources=()):
    """Check before a long job that a file can be written, and is no source and in none; see `check_folder`."""
    path = Path(path)
    if is_there(path) and not path.is_file():  # such as a device, which the rename would replace
        raise ValueError(f"{argument}: {path} is {kind_of(path)}, expected a file")
    for source in sources:
        if is_in(path, source):
            where = f"in {source}, which is " if Path(source).is_dir() else ""
            raise ValueError(f"{argument}: {path} is {where}also read from; expected another place")
    check_folder(path.parent, argument)


def is_there(path):
    """Whether anything is at a path, be it a link that leads nowhere. OSError for a path that cannot be looked at."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_in(path, place):
    """Whether a path is a file or folder, or inside the folder, by whatever names, links and hard links."""
    path, place = Path(os.path.realpath(path)), Path(os.path.realpath(place))
    if place in (path, *path.parents):
        return True
    if not path.is_file() or path.stat().st_nlink == 1:
        return False
    return any(file.is_file() and file.samefile(path) for file in (place, *place.rglob("*")))
