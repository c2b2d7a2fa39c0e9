"""The command line: parse arguments, call functions, print results. The default command is `run`."""

import errno
import os
import re
import sys
import warnings
from functools import cache

from .. import __version__
from ..checked import shown
from . import classroom, finetuning, measuring, pages, reference, tasks, writing
from .shared import Parser, subcommands

__all__ = ["main"]

# User mistakes and machine problems raise these errors. All other errors are shown with a traceback.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError, MemoryError, RecursionError)
LONGEST = 1000  # maximum number of characters of a message; the middle of a longer message is omitted
READER_GONE = 141  # the exit code that shells report after SIGPIPE: 128 + 13


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : list of str, or None for `sys.argv[1:]`

    Returns
    -------
    int, the exit code: 0 success, 1 a check or some runs failed, 2 invalid input, 130 interrupted, 141 the reader of
    the output has exited, as in `| head`
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["run", *argv]
    open_streams()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            # Ignore NumPy's warnings about infinite and nan values, because results are checked for them.
            warnings.filterwarnings("ignore", "overflow|invalid value", RuntimeWarning)
            # Print each different warning once, as one line, without the source line.
            say_once = cache(say)
            warnings.showwarning = lambda message, *place: say_once(f"warning: {message}")
            try:
                arguments = build_parser().parse_args(argv)
                code = arguments.call(arguments) or 0  # most commands return nothing
            except SystemExit as ended:  # --help and --version raise it
                code = ended.code
            sys.stdout.flush()
            return code
    except USER_ERRORS as error:
        if isinstance(error, BrokenPipeError):
            return READER_GONE
        say(f"error: {error_message(error)}")
        return 2
    except KeyboardInterrupt as stop:
        say("; ".join(["stopped", *map(str, stop.args)]))
        return 130
    finally:  # the interpreter flushes both again when it exits
        flush_or_discard(sys.stdout)
        flush_or_discard(sys.stderr)


def build_parser():
    text = "LoRA from scratch in NumPy. The default command is run, which compares full fine-tuning with LoRA."
    parser = Parser(prog="python -m lora_np", description=text)
    parser.add_argument("--version", action="version", version=f"lora_np {__version__}")
    command = subcommands(parser, "command", "COMMAND")
    for module in (measuring, finetuning, tasks, writing, pages, reference, classroom):
        module.add_commands(command)
    return parser


def open_streams():
    """Replace closed streams with the null device; otherwise, the next file opened would receive their output.

    Characters that a stream cannot encode are printed as escape sequences.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their file descriptors
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
            os.set_inheritable(getattr(sys, name).fileno(), True)
        if hasattr(getattr(sys, name), "reconfigure"):  # `chat` rejects a line that is not UTF-8
            getattr(sys, name).reconfigure(errors="backslashreplace" if mode == "w" else "surrogateescape")


def flush_or_discard(stream):
    """Flush a stream; if flushing fails, redirect the stream to the null device."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def say(text):
    """Print one short line to stderr, without control characters. If stderr has no reader, the line is discarded."""
    text = shown(text, 10**6)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        flush_or_discard(sys.stderr)


def error_message(error):
    """Return the message that is shown to the user for an error."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing; install it with: pip install -r requirements.txt"
    if isinstance(error, MemoryError):
        wanted = f" ({error})" if str(error) else ""
        return f"not enough memory{wanted}; close other programs, or use a smaller model, file or --batch-size"
    if isinstance(error, RecursionError):
        return "a value in one of the files is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        # An error without a filename is about the output, or about the current folder, which may have been deleted.
        nameless = {errno.ENOSPC: "standard output", errno.ENOENT: "the current folder"}
        name = nameless.get(error.errno) if error.filename is None else error.filename
        return (f"{name}: " if name else "") + error.strerror[0].lower() + error.strerror[1:]
    text = re.sub(r"\b(text|label)_column is '", r"--\1 is '", str(error))  # the option's name
    return text or type(error).__name__
