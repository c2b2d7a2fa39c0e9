"""What several commands share."""

from functools import partial

from ..formats import check_file, write_json

# Without buffering, so that a long job shows its results as they come, also in a pipe.
print_now = partial(print, flush=True)


def subcommands(parser, dest, metavar):
    """Give a parser its own commands; return the function (name, call, text) that adds one and returns its parser.

    `call` takes the parsed arguments, and is None for a command that has commands of its own.
    """
    commands = parser.add_subparsers(dest=dest, required=True, metavar=metavar)

    def add(name, call, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        return sub

    return add


def check_unset(arguments, names, reason):
    """Raise ValueError for the first option that is set although it does not apply."""
    for name in names:
        if getattr(arguments, name) is not None:
            raise ValueError(f"{name.replace('_', '-')}: {reason}")


def json_writer(path, sources=()):
    """Check the path of --json now, before a long job; return the function that writes a value to it.

    Without a path nothing is written. `sources` are folders that are read from, in which nothing may be written.
    """
    if path is None:
        return lambda value: None
    check_file(path, "json", sources)
    return lambda value: write_json(path, value)
