"""What several commands share."""


def subcommands(parser, dest, metavar):
    """Give a parser commands of its own.

    Returns
    -------
    function (name, call, text) -> the parser of a new command; `call` takes the parsed arguments, and is None where the
        command has commands in turn
    """
    commands = parser.add_subparsers(dest=dest, required=True, metavar=metavar)

    def add(name, call, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        return sub

    return add


def add_workers(command):
    """Where a sweep's runs are carried out."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="processes side by side (default: one a core)")
    where.add_argument(
        "--dask", metavar="ADDRESS", help="of a Dask scheduler, whose workers do the runs (needs the extra cluster)"
    )


def print_now(line):
    """Print at once, also into a pipe: a long job shows its results as they come."""
    print(line, flush=True)
