"""The command `classroom`: run the notebooks."""

from .shared import print_now


def add_commands(command):
    text = "lessons and exercises: execute NOTEBOOK …"
    classroom = command("classroom", None, text)
    actions = classroom.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name, call, text):
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        return sub

    execute = action("execute", run_execute, "run notebooks from clean kernels and store their outputs")
    execute.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")
    execute.add_argument("--check", action="store_true", help="write nothing: do the stored outputs agree with a re-run?")
    execute.add_argument("--jobs", type=int, default=2, metavar="N", help="kernels side by side (default 2)")


def run_execute(arguments):
    from ..classroom.notebooks import run_all

    if arguments.jobs < 1:
        raise ValueError(f"jobs: got {arguments.jobs}, expected at least 1")
    wrong = run_all(arguments.notebooks, arguments.check, arguments.jobs, report=print_now)
    print(f"{len(arguments.notebooks)} notebooks, {len(wrong)} complaints")
    return 1 if wrong else 0
