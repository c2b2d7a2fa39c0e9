"""The command line: parse, call, print. `python -m lora_np` without a command runs the main job."""

import argparse
import sys
import warnings

from .. import __version__
from ..checked import shown
from . import classroom, measuring, reference, tasks
from .shared import subcommands

# Mistakes of the user and problems of the machine raise one of these. Other errors show their traceback.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, MemoryError, ModuleNotFoundError)


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : list of str, or None for the process's own arguments

    Returns
    -------
    int, the exit code: 0 success, 1 a check or some runs failed, 2 unusable input, 130 interrupted
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["run", *argv]
    for out in (sys.stdout, sys.stderr):  # a pipe may not be UTF-8
        if hasattr(out, "reconfigure"):
            out.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            # NumPy's, of numbers that become infinite or nan: whatever is answered or saved is checked.
            warnings.filterwarnings("ignore", "overflow|invalid value", RuntimeWarning)
            # One line, without the place in the source.
            warnings.showwarning = lambda message, *place: print(
                f"warning: {shown(str(message), 2000)}", file=sys.stderr
            )
            return arguments.call(arguments) or 0  # most commands return nothing
    except USER_ERRORS as error:
        text = str(error) or ("not enough memory" if isinstance(error, MemoryError) else type(error).__name__)
        if isinstance(error, ModuleNotFoundError):
            text = f"the package {error.name} is missing; install it with: pip install -r requirements.txt"
        print(f"error: {shown(text, 2000)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def build_parser():
    text = "LoRA from scratch in NumPy. Without a command: the main job (run)."
    parser = argparse.ArgumentParser(prog="lora_np", description=text)
    parser.add_argument("--version", action="version", version=f"lora_np {__version__}")
    command = subcommands(parser, "command", "COMMAND")
    for module in (measuring, tasks, reference, classroom):
        module.add_commands(command)
    return parser
