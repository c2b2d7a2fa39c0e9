"""Helpers that several commands share."""

import argparse
import difflib
from functools import partial

from ..formats import check_file, write_json

# Print without buffering, so that a long job shows its results immediately, even in a pipe.
print_now = partial(print, flush=True)

TYPES = {**dict.fromkeys("NKR", int), **dict.fromkeys(["A", "M", "P", "T", "W", "X", "RATE"], float), "TEXT": str}
MOVED = "the base's new path, if it has moved (default: the path that was used in training)"
QUOTING = "in a TSV file, quotes enclose cells (default: quotes are part of the text)"


class Parser(argparse.ArgumentParser):
    """An argument parser that rejects repeated options and empty arguments, and raises errors as ValueErrors."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.register("action", None, StoreOnce)
        self.register("type", None, word)

    def add(self, usage, text=None, **settings):
        """Add an argument, given its usage (such as "--rank R", "--targets LAYER …" or "folder DIR") and help text.

        The metavar determines the type (see TYPES). An option with neither metavar nor choices is a flag.
        """
        name, *metavars = usage.split()
        if metavars:
            settings = {"metavar": metavars[0], "type": TYPES.get(metavars[0]), **settings}
        elif "choices" not in settings:
            settings["action"] = "store_true"
        if "…" in metavars:
            settings["nargs"] = "+"
        self.add_argument(name, help=text, **settings)

    def parse_known_args(self, args=None, namespace=None):
        """Reject unknown arguments in the parser of the command, which knows the options that are similar."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = {
                f"--{of.dest.replace('_', '-')}": of.option_strings[0] for of in self._actions if of.option_strings
            }
            options |= {option: option for option in self._option_string_actions}
            near = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1, cutoff=0.7)
            hint = f"; did you mean {options[near[0]]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return namespace, unknown

    def error(self, message):
        raise ValueError(f"{message}; see {self.prog} --help")


class StoreOnce(argparse.Action):
    """Store a value, and reject a repeated option; argparse's default action would silently use the last value."""

    def __call__(self, parser, namespace, values, option=None):
        if option is not None:
            given = vars(namespace).setdefault("options_given", set())
            if self.dest in given:
                raise argparse.ArgumentError(self, "is given twice, expected once")
            given.add(self.dest)
        setattr(namespace, self.dest, values)


def word(text):
    """Check and return a path or a name. This is the default argument type; arguments that may be empty use str."""
    if not text.strip():  # an empty path would be the current folder
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a value that is not blank")
    if "\0" in text or text != text.encode("utf-8", "replace").decode():  # commands save paths in JSON
        raise argparse.ArgumentTypeError(f"got {text!r}, expected UTF-8 without null characters")
    return text


def subcommands(parser, dest, metavar):
    """Add subcommands to a parser. Return a function (name, call, text) that adds a subcommand and returns its parser.

    `call` is the function that runs the command with the parsed arguments, or None for a command that has subcommands.
    """
    commands = parser.add_subparsers(dest=dest, required=True, metavar=metavar)
    commands.type = str  # otherwise argparse would check every argument after the command's name

    def add(name, call, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        return sub

    return add


def add_columns(parser, *names):
    """Add --quoting and, for each name ("text", "label"), an option that names this column of the input file."""
    for name in names:
        text = f"the file's column of {name}s (default: the same column as in training)"
        parser.add(f"--{name} COLUMN", text, dest=f"{name}_column")
    parser.add("--quoting", QUOTING)


def options_of(arguments):
    """Return the arguments that a command defines, as a dict, name -> value."""
    return {name: v for name, v in vars(arguments).items() if name not in ("call", "command", "options_given")}


def json_writer(path, sources=()):
    """Check the path given to --json before a long job. Return a function that writes a value to that path.

    If the path is None, nothing is written. `sources` are the command's input files and folders; see `check_file`.
    """
    if path is None:
        return lambda value: None
    check_file(path, "json", sources)
    return lambda value: write_json(path, value)
