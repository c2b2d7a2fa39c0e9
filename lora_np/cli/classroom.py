"""The command `classroom`: release exercises, grade submissions, run notebooks."""

from .shared import json_writer, print_now, subcommands

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
    jobs = {"type": int, "default": 2, "metavar": "N", "help": "number of kernels (default 2)"}
    releasing = action("release", run_release, "write the students' notebooks and the worked solutions")
    releasing.add_argument("folder", metavar="DIR", help="folder to write")
    releasing.add_argument("--nbgrader", action="store_true", help="write a course for nbgrader instead")
    releasing.add_argument("--source", **sources)
    releasing.add_argument("--force", action="store_true", help="overwrite existing notebooks")

    text = "run submitted notebooks, with all your rights on this machine, and give marks and feedback"
    grade = action("grade", run_grade, text)
    grade.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a notebook, or a folder of notebooks")
    grade.add_argument("--source", **sources)
    grade.add_argument("--out", metavar="DIR", help="also write marks.csv and feedback for each notebook")
    grade.add_argument("--json", metavar="FILE", help="also write marks and feedback as JSON")
    grade.add_argument("--jobs", **jobs)

    execute = action("execute", run_execute, "run notebooks in new kernels and store their outputs")
    execute.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")
    execute.add_argument("--check", action="store_true", help="write nothing; compare with the stored outputs")
    execute.add_argument("--jobs", **jobs)


def run_release(arguments):
    from ..classroom.release import release

    released = release(arguments.folder, arguments.source, arguments.nbgrader, arguments.force)
    print(f"{len(released.sets)} sets in {arguments.folder}, {len(released.written)} files")
    if arguments.nbgrader:
        print(NEXT_IN_NBGRADER.format(folder=arguments.folder, name=released.sets[0]), end="")


def run_grade(arguments):
    from ..classroom.grading import Graded, as_dict, check_places, grade_all, report, write_feedback, write_marks
    from ..classroom.release import SOURCES, read_sources
    from ..classroom.submissions import find_submissions
    from ..experiments.sweep import worker_count

    jobs = worker_count(arguments.jobs)
    sources, paths = read_sources(arguments.source), find_submissions(arguments.notebooks)
    write_as_json = json_writer(arguments.json, [*paths, arguments.source or SOURCES])
    if arguments.out is not None:
        check_places(arguments.out, paths)
    results, entries, lines = {}, {}, []
    for path, result in grade_all(paths, sources, jobs):
        results[path] = result
        if isinstance(result, Graded):
            entries[path] = as_dict(result)
            lines.append(f"{result.score:6g} of {result.points:<4g} {path}")
            print_now(report(result) + "\n")
        else:
            entries[path] = {"error": str(result)}
            lines.append(f"not graded     {result}")
        # After each notebook, so that nothing is lost if a later one crashes the machine.
        write_as_json(entries)
        if arguments.out is not None:
            write_feedback(arguments.out, path, result, paths)
            write_marks(arguments.out, results)
    print("\n".join(lines))
    return 1 if any("error" in entry for entry in entries.values()) else 0


def run_execute(arguments):
    from ..classroom.notebooks import run_all
    from ..experiments.sweep import worker_count

    wrong = run_all(arguments.notebooks, arguments.check, worker_count(arguments.jobs), report=print_now)
    print(f"{len(arguments.notebooks)} notebooks, {len(wrong)} complaints")
    return 1 if wrong else 0
