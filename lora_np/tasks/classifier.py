"""Apply a classifier to texts."""

import sys
import warnings

import numpy as np

from ..checked import quoted
from ..data import class_batches, encode, pad_id, truncate, windows
from ..formats import load_task
from ..model import architecture, predict_logits
from ..ops import softmax_forward
from ..training import CLASSIFIER_BATCH, available_cores, blas_threads, shard_threads
from ..training.progress import with_bar
from .label_words import label_head, label_ids, prompt_ids

LARGE, MANY = 10_000_000, 500  # all cores are used by a classifier with more parameters, or for more texts
SAMPLE = 1000  # texts for `warn_if_split`
MOST_TOKENS_PER_WORD, MOST_UNKNOWN = 2.0, 0.05


def load_classifier(folder, base=None):
    """Read a classifier that `finetune`, `import` or `merge` saved; see `load_task`.

    Raises ValueError for a language model.
    """
    task = load_task(folder, base)
    if task.labels is None:
        if not architecture(task.config).writes:
            raise ValueError(f"{folder}: got an encoder, expected a classifier; train one with `finetune`")
        raise ValueError(f"{folder}: got a language model, expected a classifier; use `generate` for a language model")
    return task


def predict(classifier, texts):
    """Return the most probable label of each text, and its probability.

    Parameters
    ----------
    classifier : LoadedModel with labels
    texts : list of str; those with more tokens than `most_tokens` are read in windows or truncated, see `read_pieces`

    Returns
    -------
    list of (label, probability), in the order of the texts

    Raises
    ------
    FloatingPointError
        If the model's logits are not finite.
    """
    return [(classifier.labels[p.argmax()], float(p.max())) for p in class_probabilities(classifier, texts)]


def class_probabilities(classifier, texts, progress=None):
    """Return the class probabilities (N, K) of N texts; see `predict`.

    A warning reports the number of truncated texts. `progress` is the label of a progress bar, or None for no bar.
    """
    sequences, n_longer = token_ids(classifier, texts)
    warn_of_truncated(classifier, n_longer, len(texts))
    return probabilities_of(classifier, sequences, progress)


def warn_of_truncated(classifier, n_longer, n):
    """Warn if a classifier truncates some of n texts because they have more tokens than it reads."""
    if n_longer and classifier.overlap is None:
        most = most_tokens(classifier)
        warnings.warn(f"texts: {n_longer} of {n} have more than {most} tokens and are truncated", stacklevel=3)


def probabilities_of(classifier, sequences, progress=None):
    """Return the class probabilities (N, K) of N arrays of token ids, averaged over the windows of each text."""
    params, config, adapter, tokenizer, labels, *_ = classifier
    pieces, rows = read_pieces(classifier, sequences)
    batches = class_batches(pieces, np.zeros_like(rows), CLASSIFIER_BATCH, pad_id(tokenizer))
    asks = classifier.question is not None
    head = label_head(params, config, label_ids(tokenizer, labels)) if asks else None
    probabilities = np.empty((len(pieces), len(labels)))
    takes_long = len(pieces) > MANY or sum(weight.size for weight in params.values()) > LARGE
    with blas_threads(1), shard_threads(available_cores() if takes_long else 1) as run:
        logits_of = predict_logits(params, batches, config, adapter, run, head)
        for batch, (logits, _) in zip(with_bar(batches, progress), logits_of):
            probabilities[batch.rows] = softmax_forward(logits)[0]  # (B, K)
    counts = np.bincount(rows)
    return np.add.reduceat(probabilities, np.cumsum(counts) - counts) / counts[:, None]


def most_tokens(classifier):
    """Return the maximum number of tokens that a classifier reads at once, including those of its question, if any."""
    return classifier.max_tokens or classifier.config.n_positions


def token_ids(classifier, texts):
    """Return each text's token ids, with those of any question, and how many texts have more than `most_tokens`.

    If there is a question, the ids are already truncated.

    Raises ValueError for a text without tokens, because a classifier predicts at the last token.
    """
    tokenizer, most = classifier.tokenizer, most_tokens(classifier)
    if classifier.question is not None:
        whole = prompt_ids(tokenizer, texts, classifier.question, sys.maxsize)
        return prompt_ids(tokenizer, texts, classifier.question, most), sum(len(ids) > most for ids in whole)
    sequences = encode(tokenizer, texts)
    for row, ids in enumerate(sequences):
        if not len(ids):
            reason = "has no tokens, and this model's tokenizer adds no special tokens"
            raise ValueError(f"text {row}: got {quoted(texts[row], 100)}, which {reason}; remove the text")
    return sequences, sum(len(ids) > most for ids in sequences)


def read_pieces(classifier, sequences, most=None):
    """Return the pieces of N texts that a classifier reads; the texts are arrays of token ids from `token_ids`.

    A text with more than `most_tokens` tokens is cut into windows, at most `most` of them. If the classifier has no
    overlap, the text is truncated instead. See `windows` for the returned pieces and rows.
    """
    tokenizer, config, rows = classifier.tokenizer, classifier.config, np.arange(len(sequences))
    if classifier.question is not None:
        return sequences, rows
    if classifier.overlap is None:
        pieces = truncate(tokenizer, sequences, most_tokens(classifier))
    else:
        pieces, rows = windows(tokenizer, sequences, most_tokens(classifier), classifier.overlap, most)
    return without_padding(pieces, config), rows


def warn_if_split(classifier, texts):
    """Warn if a vocabulary does not suit the texts: it splits their words into many tokens, or lacks some of them."""
    encoded = classifier.tokenizer.encode_batch(texts[:SAMPLE], add_special_tokens=False)
    tokens = [token for of_text in encoded for token in of_text.tokens]
    per_word = len(tokens) / max(1, sum(len(text.split()) for text in texts[:SAMPLE]))
    unknown = tokens.count(getattr(classifier.tokenizer.model, "unk_token", None)) / max(1, len(tokens))
    if per_word > MOST_TOKENS_PER_WORD or unknown > MOST_UNKNOWN:
        share = f"{per_word:.1f} tokens per word, {100 * unknown:.0f} % unknown tokens (usual: 1.2 to 1.6, and 0 %)"
        warnings.warn(f"texts: {share}; this base's vocabulary does not suit them, which costs accuracy", stacklevel=2)


def without_padding(sequences, config):
    """Remove trailing ids that equal the `pad_token_id` of an imported model, if its configuration has one.

    A classifier predicts at the last token, and transformers treats all trailing tokens with that id as padding.
    """
    pad = config.extra.get("pad_token_id")
    if pad is None:
        return sequences
    return [ids[: np.append(0, np.flatnonzero(ids != pad))[-1] + 1] for ids in sequences]
