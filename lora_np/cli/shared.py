"""What several commands share."""


def subcommands(parser, dest, metavar):
    """Give a parser its own commands.

    Returns
    -------
    function (name, call, text) -> the parser of a new command; `call` takes the parsed arguments, and is None for a
        command that has commands of its own
    """
    commands = parser.add_subparsers(dest=dest, required=True, metavar=metavar)

    def add(name, call, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        return sub

    return add


def add_workers(command):
    """Options for where the runs of an experiment are computed and stored."""
    text = "folder of finished runs (default out/runs)"
    command.add_argument("--store", default="out/runs", metavar="DIR", help=text)
    where = command.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="number of processes (default: one per core)")
    where.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler whose workers do the runs (extra: cluster)")


def add_out(command):
    """The option for the folder to write."""
    command.add_argument("--out", required=True, metavar="DIR", help="folder to write")


def figures_folder(arguments):
    """Where a command with --out and --quick writes its figures."""
    return arguments.out or ("figures/quick" if arguments.quick else "figures")


def check_unset(arguments, names, reason):
    """Raise ValueError for the first option that is set although it does not apply."""
    for name in names:
        if getattr(arguments, name) is not None:
            raise ValueError(f"{name.replace('_', '-')}: {reason}")


def json_writer(path, sources=()):
    """Check the path of --json now, before a long job; return the function that writes a value to it.

    Parameters
    ----------
    path : str or None, which writes nothing
    sources : folders that are read from, in which nothing may be written
    """
    from ..formats import check_file, write_json

    if path is None:
        return lambda value: None
    check_file(path, "json", sources)
    return lambda value: write_json(path, value)


def print_now(line):
    """Print without buffering, so that a long job shows its results as they come, also in a pipe."""
    print(line, flush=True)
