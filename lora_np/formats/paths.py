"""Check output paths before a long job, so that it does not overwrite its inputs or the user's other files."""

import os
from pathlib import Path

from ..data.texts import kind_of

PRETRAINED = Path(__file__).parent.parent / "pretrained"  # the included base, and the included adapters
# All files that this package writes into a folder. Any others are the user's.
MODEL_FILES = """model.safetensors model.gguf config.json generation_config.json adapter.safetensors adapter.json
task.json confusion.png calibration.png mistakes.csv adapter_model.safetensors adapter_config.json tokenizer.json
tokenizer_config.json modules.json sentence_bert_config.json config_sentence_transformers.json 1_Pooling 2_Normalize
2_Dense vocab.txt special_tokens_map.json added_tokens.json vocab.json merges.txt chat_template.jinja training_log.json
.DS_Store""".split()


def check_folder(path, argument, sources=(), force=False):
    """Check that a folder, which need not exist yet, can be written to.

    The `sources` are input files and folders, which must not be overwritten. Raises a ValueError that names the
    caller's `argument` if the folder cannot be written to, or if it is or contains a source. Unless `force` is set,
    the package's own folder of models and adapters is also rejected, with everything in it.
    """
    path = Path(path)
    existing = next(folder for folder in (path, *path.absolute().parents) if is_there(folder))
    if not existing.exists():
        raise ValueError(f"{argument}: {existing} is a broken link, expected a folder")
    if not existing.is_dir():
        raise ValueError(f"{argument}: {existing} is {kind_of(existing)}, expected a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{argument}: {existing} cannot be written to")
    if is_in(path, PRETRAINED) and not force:
        raise ValueError(
            f"{argument}: {path} comes with the package; choose a different path (or, for pretrain, use --force)"
        )
    for source in sources:
        if is_in(source, path):
            what = "is" if is_in(path, source) else f"contains {source}, which is"
            raise ValueError(f"{argument}: {path} {what} also an input; expected a different folder")


def check_target(path, argument, sources=(), carry=(), force=False):
    """Check that an entire folder can be replaced; see `check_folder` and `write_folder`.

    Also raises ValueError for the current folder, a mount point, or a folder with files not written by this package.
    """
    check_folder(path, argument, sources, force)
    path = Path(os.path.realpath(path))
    if path.exists() and not os.access(path.parent, os.W_OK):
        raise ValueError(f"{argument}: {path.parent} is not writable, but the new {path.name} must be created there")
    if path == Path.cwd():  # the shell would stay in the old folder
        raise ValueError(f"{argument}: {path} is the current folder, which cannot be replaced; choose another one")
    others = sorted(set(os.listdir(path)) - {*MODEL_FILES, *carry}) if path.exists() else []
    if others:
        expected = "expected a new folder, or one that contains only a model"
        raise ValueError(f"{argument}: {path} contains unrelated files, such as {others[0]!r}; {expected}")
    if path.is_mount():
        raise ValueError(f"{argument}: {path} is a mount point, which cannot be replaced; choose a folder inside it")


def check_file(path, argument, sources=()):
    """Check that a file can be written, and that it is not one of the sources or inside one; see `check_folder`."""
    path = Path(path)
    if is_there(path) and not path.is_file():  # for example a device, which a rename would replace
        raise ValueError(f"{argument}: {path} is {kind_of(path)}, expected a file")
    for source in sources:
        if is_in(path, source):
            where = f"in {source}, which is " if Path(source).is_dir() else ""
            raise ValueError(f"{argument}: {path} is {where}also an input; expected a different path")
    check_folder(path.parent, argument)


def is_there(path):
    """Whether a path exists; broken links count as existing. Raises OSError if the path cannot be accessed."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_in(path, place):
    """Whether a path is the given file or folder, or inside the folder; symbolic and hard links are followed."""
    path, place = Path(os.path.realpath(path)), Path(os.path.realpath(place))
    if place in (path, *path.parents):
        return True
    if not path.is_file() or path.stat().st_nlink == 1:
        return False
    return any(file.is_file() and file.samefile(path) for file in (place, *place.rglob("*")))
