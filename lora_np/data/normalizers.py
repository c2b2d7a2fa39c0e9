"""Our tokenizer's normaliser, and limits on how much the normalisers of other tokenizers may lengthen a text.

A ``tokenizer.json`` may contain steps that replace characters. Three steps that each replace a letter with a thousand
letters turn one letter into a billion, so the length of a result is bounded before `tokenizers` computes it.
"""

import json
import math
from functools import cache

SPACED_MARKS = '.,;:!?"()*'  # punctuation that the Rotten Tomatoes snippets surround with spaces
LONGEST = 10**8  # maximum number of characters of a text in any step
STEEPEST = 10**6  # maximum factor by which all steps of a file together could make a text longer
FACTORS = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Precompiled": 18}  # growth of one letter; other steps: 3
FACTORS |= {"ByteLevel": 4, "BertNormalizer": 4}


def normalizer():
    """The normaliser that converts texts to the style of the Rotten Tomatoes snippets.

    ``He said "It's 9.5/10"--wow!<br />`` becomes ``he said " it's 9 . 5/10 " -- wow !``: lower case, with spaces around
    punctuation except apostrophes, hyphens, slashes and square brackets. Because the style is the same, a model trained
    on the IMDb reviews can also be used for the snippets.
    """
    from tokenizers import Regex, normalizers

    replace = normalizers.Replace
    return normalizers.Sequence(
        [
            replace(Regex(r"</?[A-Za-z]+\s*/?>"), " "),  # <br />, <i>, </i>
            normalizers.Lowercase(),
            normalizers.NFC(),  # after Lowercase, because some letters have a composed form only in lower case
            # Typographic punctuation becomes ASCII, including Windows-1252 bytes (\x85, \x91 ...).
            replace(Regex("[`´‘’\x91\x92]"), "'"),
            replace(Regex("[“”„\x84\x93\x94]"), '"'),
            replace(Regex("…|\x85"), "..."),
            replace(Regex("[–—\x96\x97]|-{2,}"), " -- "),
            # Sixty exclamation marks mean no more than three, but cost sixty tokens.
            *[replace(Regex(f"[{mark}]{{4,}}"), 3 * mark) for mark in ".!?*"],
            # Literal replacements, because zero-width matches such as (?=[.,;]) make the library panic (0.23.3).
            *[replace(mark, f" {mark} ") for mark in SPACED_MARKS],
            replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )


@cache
def own_state():
    """The JSON of our normaliser, which lengthens a text by at most a factor of nine."""
    return normalizer().__getstate__()


def steps_of(part):
    """The steps of a normalizer or decoder in a ``tokenizer.json``, as a list in which sequences are flattened."""
    parts, steps = [part], []
    while parts:
        part = parts.pop()
        inner = part.get("normalizers", part.get("decoders")) if isinstance(part, dict) else []
        if isinstance(inner, list):
            parts += reversed(inner)
        else:
            steps.append(part)
    return steps


def factor(*steps):
    """The factor, capped at 10¹², by which steps lengthen a text if every regex matches between all letters."""
    product = 1
    for step in steps:
        inserted, plain = step.get("content", step.get("prepend")), plain_pattern(step)
        if step.get("type") in ("Replace", "Prepend") and isinstance(inserted, str):
            product *= max(1, math.ceil(len(inserted) / len(plain))) if plain else 1 + len(inserted)
        else:
            product *= FACTORS.get(str(step.get("type")), 3)
        product = min(product, 10**12)
    return product


def plain_pattern(step):
    """The string that a Replace step looks for, or None if its pattern is empty or a regular expression."""
    pattern = step.get("pattern")
    return pattern.get("String") or None if isinstance(pattern, dict) else None


def check_steps(content):
    """Raise ValueError if the steps of a ``tokenizer.json`` could make a text or an added token too long."""
    for name in ("normalizer", "decoder"):
        part = content.get(name)
        if part != json.loads(own_state()) and (most := factor(*steps_of(part))) > STEEPEST:
            raise ValueError(f"its {name} could make a text {most:,} times as long, expected at most {STEEPEST:,}")
    steps = steps_of(content.get("normalizer"))
    for token in content.get("added_tokens") or ():
        if token.get("normalized") and len(token["content"]) * factor(*steps) > LONGEST:
            check_text(steps, token["content"])


def check_growth(normalizer, texts):
    """Raise ValueError if a text could become longer than `LONGEST` in a step of the normalizer."""
    state = own_state() if normalizer is None else normalizer.__getstate__()
    if state == own_state():
        return
    steps = parsed(state)
    most = factor(*steps)
    for text in texts:
        if len(text) * most > LONGEST:
            check_text(steps, text)


@cache
def parsed(state):
    return steps_of(json.loads(state))


def check_text(steps, text):
    """Apply the steps one at a time; before each, raise ValueError if its result could be longer than `LONGEST`."""
    from tokenizers import normalizers

    for step in steps:
        if len(text) * factor(step) > LONGEST and longest_result(step, text) > LONGEST:
            raise ValueError(f"the tokenizer's normalizer could make a text longer than {LONGEST:,} characters")
        one = normalizers.Sequence([])
        one.__setstate__(json.dumps(step).encode("utf-8"))
        text = one.normalize_str(text)


def longest_result(step, text):
    """An upper bound on the length of a step's result; exact for a Replace of a plain string."""
    plain = plain_pattern(step)
    if plain is None or step.get("type") != "Replace":
        return len(text) * factor(step)
    return len(text) + text.count(plain) * (len(step["content"]) - len(plain))
