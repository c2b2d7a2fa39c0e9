"""The command `classroom`: make a class's notebooks, grade what comes back, run notebooks."""

from pathlib import Path

from .shared import print_now, subcommands

NEXT_IN_NBGRADER = """next, for one set:
  cd {folder}
  nbgrader generate_assignment {name}
  (hand out release/{name}; what comes back goes to submitted/STUDENT/{name}/{name}.ipynb)
  nbgrader autograde {name}
  (give the points for answers in words: nbgrader formgrade)
  nbgrader generate_feedback {name}
"""


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
    grade.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a notebook, or a folder of notebooks")
    grade.add_argument("--source", **sources)
    grade.add_argument("--out", metavar="DIR", help="also write marks.csv and a text of feedback for each notebook")
    grade.add_argument("--json", metavar="FILE", help="also write marks and feedback as JSON")
    grade.add_argument("--jobs", type=int, default=2, metavar="N", help="kernels side by side (default 2)")

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
        print(NEXT_IN_NBGRADER.format(folder=arguments.folder, name=done.sets[0]), end="")
    return 0


def run_grade(arguments):
    from ..classroom.grading import Graded, as_dict, grade_all, report, write_feedback, write_marks
    from ..classroom.release import read_sources
    from ..classroom.submissions import find_submissions
    from ..experiments.processes import worker_count
    from ..formats import check_file, check_folder, write_json

    jobs = worker_count(arguments.jobs)
    sources, paths = read_sources(arguments.source), find_submissions(arguments.notebooks)
    if arguments.json is not None:
        check_file(arguments.json, "json")
        if Path(arguments.json).resolve() in [Path(path).resolve() for path in paths]:
            raise ValueError(f"json: {arguments.json} is one of the notebooks; expected another file")
    if arguments.out is not None:
        check_folder(arguments.out, "out")
    found, entries, lines = {}, {}, []
    for path, one in grade_all(paths, sources, jobs):
        found[path] = one
        if isinstance(one, Graded):
            entries[path] = as_dict(one)
            lines.append(f"{one.score:6g} of {one.points:<4g} {path}")
            print_now(report(one) + "\n")
        else:
            entries[path] = {"error": str(one)}
            lines.append(f"not graded     {one}")
        # After each, so that nothing is lost if a later one is too much for the machine.
        if arguments.json is not None:
            write_json(arguments.json, entries)
        if arguments.out is not None:
            write_feedback(arguments.out, path, one, paths)
            write_marks(arguments.out, found)
    print("\n".join(lines))
    return 1 if any("error" in entry for entry in entries.values()) else 0


def run_execute(arguments):
    from ..classroom.notebooks import run_all
    from ..experiments.processes import worker_count

    jobs = worker_count(arguments.jobs)
    wrong = run_all(arguments.notebooks, arguments.check, jobs, report=print_now)
    print(f"{len(arguments.notebooks)} notebooks, {len(wrong)} complaints")
    return 1 if wrong else 0
