"""Convert conversations to text: render a model's chat template, or concatenate the messages if there is none.

A chat template is a Jinja program, which may be malicious. It runs in a child process with limits (`templates.py`).
"""

import re
import sys
from importlib import metadata
from typing import NamedTuple

import numpy as np

from ..checked import shown, whole_number
from ..data import IGNORE_INDEX, encode
from ..data.tokenizer import CHUNK, check_texts, library
from ..data.tokenizer_files import NAMES, SETTINGS, TEMPLATE, json_object
from . import templates
from .patterns import in_a_child

JINJA = (3, 1, 6)  # older versions have known sandbox escapes
SECONDS, SECONDS_EACH = 5.0, 0.01  # time limit of a call, and the additional time for each text
LONGEST = 10**7  # maximum number of output characters; 20 more are allowed for each input character


class Template(NamedTuple):
    text: str
    special: dict  # name, such as "eos_token" -> text


class Rows(NamedTuple):
    """Conversations to train on. Each row has ids (T,) and targets (T,), as in `Batch`."""

    rows: list[tuple[np.ndarray, np.ndarray]]
    n_cut: int  # number of conversations that were truncated
    n_empty: int  # number of conversations omitted because no part of an answer fits into a row


def chat_template(files):
    """The Template in a model's files (name -> bytes), or None if there is none.

    Raises
    ------
    ValueError
        If a file is damaged, or has several templates and none named "default".
    """
    settings = {**json_object(NAMES, files.get(NAMES)), **json_object(SETTINGS, files.get(SETTINGS))}
    text = settings.get("chat_template")
    if TEMPLATE in files:
        text = files[TEMPLATE].decode("utf-8", "replace")
    if isinstance(text, list):
        text = {one.get("name"): one.get("template") for one in text if isinstance(one, dict)}.get("default", 0)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{SETTINGS}: chat_template is invalid, expected a string or a list with a 'default' template")
    tokens = {name: value for name, value in settings.items() if name.endswith("_token")}
    tokens = {name: value.get("content") if isinstance(value, dict) else value for name, value in tokens.items()}
    return text and Template(text, {name: value for name, value in tokens.items() if isinstance(value, str)})


def render_chat(template, messages, begins_answer=False, now=None):
    """Render one conversation as text.

    Parameters
    ----------
    template : Template
    messages : list of dict with role and content
    begins_answer : bool, whether to append the header of an answer (``add_generation_prompt``)
    now : datetime.datetime, for templates that write the date; None: these templates use a default date or fail

    Raises
    ------
    ValueError
        If the template is malformed, rejects the messages, exceeds a limit on time or output, or if jinja2 is missing.
    """
    return render(template, [(messages, begins_answer)], now, ["messages"])[0]


def render(template, jobs, now, places):
    """Render many pairs (messages, begins_answer) in one process; `places` are their names in error messages."""
    if template is None:
        return ["".join(message["content"] for message in messages) for messages, _ in jobs]
    try:
        version = metadata.version("jinja2")
    except metadata.PackageNotFoundError:
        version = ""
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < JINJA:
        needed = ".".join(map(str, JINJA))
        raise ValueError(f"a chat template needs jinja2 >= {needed}, found {version or 'none'}: pip install -U jinja2")
    if not jobs:
        return []
    seconds = SECONDS + SECONDS_EACH * len(jobs)
    longest = LONGEST + 20 * sum(len(str(messages)) for messages, _ in jobs)
    given = {"template": template.text, "special": template.special, "now": now and now.isoformat()}
    lines = in_a_child(templates.__file__, {**given, "path": sys.path, "jobs": jobs, "longest": longest}, seconds)
    if lines and isinstance(lines[-1], list):
        problem = ": ".join(filter(None, lines.pop()))
        raise ValueError(f"{places[len(lines)]}: the chat template failed: {shown(problem)}")
    if len(lines) < len(jobs):
        limits = f"{seconds:.0f} s or {templates.MEMORY // 2**20} MB"
        raise ValueError(f"{places[len(lines)]}: the chat template needs more than {limits}, or crashes Python")
    return lines


def chat_rows(conversations, tokenizer, template, length, places=None, now=None):
    """Token ids and targets of conversations, for training on the answers only.

    A target is the next token if that token is part of an answer, and IGNORE_INDEX otherwise. An answer includes its
    end token, such as ``<|im_end|>``, but neither the white space after that token nor the header before the answer,
    such as ``<|im_start|>assistant``. A token that straddles the header and the answer is part of the answer.

    Parameters
    ----------
    conversations : list of lists of messages, which are dicts with role and content
    tokenizer : Tokenizer
    template : Template, or None if each conversation is a prompt and its completion, which are then concatenated, with
        the special tokens that the tokenizer adds to a text
    length : int, the maximum number of tokens in a row, T
    places : list of str, the conversations' names for error messages, or None
    now : datetime.datetime or None, see `render_chat`

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        As in `render_chat`; also if the template does not render a conversation from left to right, so that answers
        cannot be located; or, without a template, if a conversation is not one prompt and its completion.
    """
    length = whole_number("length", length)
    places = places or [f"conversation {i}" for i in range(1, len(conversations) + 1)]
    texts, spans = rendered_texts(conversations, places, template, now)
    check_texts(texts)
    marks = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    rows, n_cut, n_empty = [], 0, 0
    for start in range(0, len(texts), CHUNK):
        with library("a conversation: the tokenizer cannot encode it"):
            found = tokenizer.encode_batch(texts[start : start + CHUNK], add_special_tokens=template is None)
        for row, encoding in enumerate(found, start):
            ids = np.array(encoding.ids, dtype=np.int64)
            learnt = is_answer(encoding, texts[row], spans[row], marks)
            n_cut += len(ids) > length + 1
            ids, learnt = ids[: length + 1], learnt[: length + 1]
            if learnt[1:].any():
                rows.append((ids[:-1], np.where(learnt[1:], ids[1:], IGNORE_INDEX)))
            else:
                n_empty += 1
    return Rows(rows, n_cut, n_empty)


def chat_prompts(conversations, tokenizer, template, places, now=None):
    """Token ids of conversations up to where the next answer begins, as a list of arrays; see `chat_rows`.

    Without a template, a conversation is one message, to which no end token is added.
    """
    if template is None:
        for messages, place in zip(conversations, places):
            if len(messages) > 1:
                raise ValueError(
                    f"{place}: got {len(messages)} messages; without a chat template, expected a single text"
                )
        return encode(tokenizer, [messages[0]["content"] for messages in conversations])
    texts = render(template, [(messages, True) for messages in conversations], now, places)
    check_texts(texts)
    with library("a prompt: the tokenizer cannot encode it"):
        return [np.array(of.ids, dtype=np.int64) for of in tokenizer.encode_batch(texts, add_special_tokens=False)]


def is_answer(encoding, text, spans, marks):
    """Whether each token of a text is part of an answer, (T,) bool.

    Only the end of a token is compared with the answers' spans, because some tokenizers report that a token starts
    after its leading space.
    """
    ends = np.array([end for _, end in encoding.offsets], dtype=np.int64)  # (T,)
    added = np.array(encoding.special_tokens_mask, dtype=bool)  # (T,) tokens that the tokenizer adds around the text
    learnt = np.zeros(len(ends), dtype=bool)
    for start, end in spans:
        without_space = text[start:end].rstrip()
        if without_space.endswith(tuple(marks)):
            end = start + len(without_space)
        learnt |= (ends > start) & (ends <= end) & ~added
    last = len(added) - np.argmin(added[::-1]) if len(added) else 0  # after the last token of the text itself
    learnt[last:] = True
    return learnt


def rendered_texts(conversations, places, template, now):
    """Render or concatenate conversations, and return the texts and the answers' spans, [(start, end)].

    The text before an answer is the rendering of all earlier messages, followed by the answer's header. The text up to
    the end of an answer is the rendering of all messages up to and including it. Both of these texts must be prefixes
    of the entire conversation's text.
    """
    answers = [[k for k, one in enumerate(messages) if one["role"] == "assistant"] for messages in conversations]
    jobs, whose = [], []
    for messages, ks, place in zip(conversations, answers, places):
        if template is None and [message["role"] for message in messages] != ["user", "assistant"]:
            raise ValueError(f"{place}: the model has no chat template; give a prompt and a completion, not messages")
        beginnings = [((messages[:k], True), (messages[: k + 1], False)) for k in ks]
        jobs += [(messages, False), *sum(beginnings, ())]
        whose += [place] * (1 + 2 * len(ks))
    rendered = iter(render(template, jobs, now, whose))
    texts, spans = [], []
    for ks, place in zip(answers, places):
        texts.append(next(rendered))
        spans.append([])
        for k in ks:
            beginnings = next(rendered), next(rendered)
            if not all(map(texts[-1].startswith, beginnings)):
                problem = f"the chat template changes the text up to messages[{k}] when more messages follow"
                raise ValueError(f"{place}: {problem}; expected a template that renders from left to right")
            spans[-1].append(tuple(map(len, beginnings)))
    return texts, spans
