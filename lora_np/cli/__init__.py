"""The command line: parse, call, print. `python -m lora_np` alone carries out the main job."""

import argparse
import sys
import warnings

from . import classroom, measuring, parts, reference, training
from .shared import subcommands

# What a user can get wrong or the world can lack is raised as one of these; others keep their traceback.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, ModuleNotFoundError)


def main(argv=None):
    """Carry out one command.

    Parameters
    ----------
    argv : list of str, or None for the process's own arguments

    Returns
    -------
    int, the exit code: 0 done, 1 a check or some runs of a sweep failed, 2 unusable input
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["run", *argv]
    for out in (sys.stdout, sys.stderr):  # into a pipe that is not UTF-8, all can be printed all the same
        if hasattr(out, "reconfigure"):
            out.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = say_warning
            return arguments.call(arguments)
    except USER_ERRORS as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def say_warning(message, category, filename, lineno, file=None, line=None):
    """A warning in one line, without the place in the source."""
    print(f"warning: {message}", file=sys.stderr)


def explain(error):
    """The error in one sentence; for a package that is not there, how to get it."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is needed here; install it with: pip install -r requirements.txt"
    return str(error) or type(error).__name__


def build_parser():
    from .. import __version__

    parser = argparse.ArgumentParser(
        prog="lora_np", description="LoRA from scratch in NumPy. Without a command: the main job (run)."
    )
    parser.add_argument("--version", action="version", version=f"lora_np {__version__}")
    command = subcommands(parser, "command", "COMMAND")
    for module in (training, parts, measuring, reference, classroom):
        module.add_commands(command)
    return parser
