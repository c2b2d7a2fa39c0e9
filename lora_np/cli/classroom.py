"""The command `classroom`: make a class's notebooks, grade what comes back, run notebooks."""

from pathlib import Path

from .shared import print_now, subcommands


def add_commands(command):
    text = "lessons and exercises: release DIR, grade NOTEBOOK …, execute NOTEBOOK …"
    action = subcommands(command("classroom", None, text), "action", "ACTION")

    sources = {"metavar": "DIR", "help": "folder of the exercises' sources (default: those of this clone)"}
    release = action("release", run_release, "write the students' notebooks and the worked solutions")
    release.add_argument("folder", metavar="DIR", help="folder to write")
    release.add_argument("--nbgrader", action="store_true", help="write a course for nbgrader in place of the two")
    release.add_argument("--source", **sources)
    release.add_argument("--force", action="store_true", help="write over notebooks that are there")

    text = "execute submitted notebooks, with all your rights on this machine, and give marks and feedback"
    grade = action("grade", run_grade, text)
    grade.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")
    grade.add_argument("--source", **sources)
    grade.add_argument("--json", metavar="FILE", help="also write marks and feedback as JSON")

    execute = action("execute", run_execute, "run notebooks from clean kernels and store their outputs")
    execute.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")
    text = "write nothing, and say where the stored outputs do not agree with a re-run"
    execute.add_argument("--check", action="store_true", help=text)
    execute.add_argument("--jobs", type=int, default=2, metavar="N", help="kernels side by side (default 2)")


def run_release(arguments):
    from ..classroom.release import release

    done = release(arguments.folder, arguments.source, arguments.nbgrader, arguments.force)
    print(f"{len(done.sets)} sets in {arguments.folder}, {len(done.written)} files")
    if arguments.nbgrader:
        print(f"next: cd {arguments.folder} && nbgrader generate_assignment {done.sets[0]}")
    return 0


def run_grade(arguments):
    from ..classroom.grading import as_dict, grade, report
    from ..classroom.release import read_sources
    from ..formats import check_file, write_json

    sources = read_sources(arguments.source)
    if arguments.json is not None:
        check_file(arguments.json, "json")
        if Path(arguments.json).resolve() in [Path(path).resolve() for path in arguments.notebooks]:
            raise ValueError(f"json: {arguments.json} is one of the notebooks; expected another file")
    found, lines = {}, []
    for path in arguments.notebooks:  # one that cannot be graded does not keep the others from it
        try:
            graded = grade(path, sources)
        except ValueError as error:
            found[path] = {"error": str(error)}
            lines.append(f"not graded     {path}: {error}")
            continue
        found[path] = as_dict(graded)
        lines.append(f"{graded.score:6g} of {graded.points:<4g} {path}")
        print_now(report(graded) + "\n")
    print("\n".join(lines))
    if arguments.json is not None:
        write_json(arguments.json, found)
    return 1 if any("error" in entry for entry in found.values()) else 0


def run_execute(arguments):
    from ..classroom.notebooks import run_all

    if arguments.jobs < 1:
        raise ValueError(f"jobs: got {arguments.jobs}, expected at least 1")
    wrong = run_all(arguments.notebooks, arguments.check, arguments.jobs, report=print_now)
    print(f"{len(arguments.notebooks)} notebooks, {len(wrong)} complaints")
    return 1 if wrong else 0
