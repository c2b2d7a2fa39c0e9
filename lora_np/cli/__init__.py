"""The command line: parse, call, print. `python -m lora_np` without a command runs the main job."""

import errno
import os
import sys
import warnings

from .. import __version__
from ..checked import shown
from . import classroom, exploring, finetuning, measuring, reference, tasks, writing
from .shared import Parser, subcommands

# Mistakes of the user and problems of the machine raise one of these. Other errors show their traceback.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError, MemoryError, RecursionError)
LONGEST = 1000  # characters of a message; more would be a value that nobody reads
READER_GONE = 141  # what shells report of a program that SIGPIPE ended: 128 + 13


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : list of str, or None for the process's own arguments

    Returns
    -------
    int, the exit code: 0 success, 1 a check or some runs failed, 2 unusable input, 130 interrupted, 141 nobody reads
        the output any more, as in `| head`
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["run", *argv]
    open_streams()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            # NumPy's, of numbers that become infinite or nan: whatever is answered or saved is checked.
            warnings.filterwarnings("ignore", "overflow|invalid value", RuntimeWarning)
            # One line, without the place in the source.
            warnings.showwarning = lambda message, *place: say(f"warning: {message}")
            try:
                arguments = build_parser().parse_args(argv)
                code = arguments.call(arguments) or 0  # most commands return nothing
            except SystemExit as ended:  # as --help and --version do
                code = ended.code
            sys.stdout.flush()
            return code
    except USER_ERRORS as error:
        if isinstance(error, BrokenPipeError):
            return READER_GONE
        say(f"error: {in_words(error)}")
        return 2
    except KeyboardInterrupt as stop:
        say("; ".join(["stopped", *map(str, stop.args)]))
        return 130
    finally:  # the interpreter flushes both once more when it ends
        settle(sys.stdout)
        settle(sys.stderr)


def build_parser():
    text = "LoRA from scratch in NumPy. Without a command: the main job (run)."
    parser = Parser(prog="python -m lora_np", description=text)
    parser.add_argument("--version", action="version", version=f"lora_np {__version__}")
    command = subcommands(parser, "command", "COMMAND")
    for module in (measuring, finetuning, tasks, exploring, writing, reference, classroom):
        module.add_commands(command)
    return parser


# ---------------------------------------------------------------- what is printed


def open_streams():
    """Put the null device in the place of a stream that is closed: the next file would get its number, and our output.

    What a stream's encoding does not have is printed with escapes.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
            os.set_inheritable(getattr(sys, name).fileno(), True)
        if mode == "w" and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def settle(stream):
    """Write what a stream holds back; where that is impossible, turn the stream to the null device, which takes it."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def say(text):
    """Print one line to stderr, short and without characters that a terminal obeys, if anybody reads it."""
    text = shown(text, 10**6)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        settle(sys.stderr)


def in_words(error):
    """What an error says to a user."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing; install it with: pip install -r requirements.txt"
    if isinstance(error, MemoryError):
        wanted = f" ({error})" if str(error) else ""
        return f"not enough memory{wanted}; close other programs, or use a smaller model, file or --batch-size"
    if isinstance(error, RecursionError):
        return "a value in one of the files is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        if name is None and error.errno == errno.ENOSPC:  # who writes a file names it
            name = "standard output"
        return (f"{name}: " if name else "") + error.strerror[0].lower() + error.strerror[1:]
    return str(error) or type(error).__name__
