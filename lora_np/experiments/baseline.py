"""A baseline without a neural network: logistic regression on tf-idf weights."""

import numpy as np

from ..data import load_tokenizer, normalise
from ..formats import PRETRAINED
from ..tasks.baseline import word_classifier
from .runs.classify import split_reviews


def tfidf_baseline(limit=None, fold=None):
    """Fit logistic regression to words and word pairs, weighted by tf-idf, on the splits that all other methods use.

    The term frequencies (raw or sublinear) and the parameter C are chosen by validation accuracy. At most `limit`
    snippets of each split are used; `fold` is as in `split_reviews`.

    Returns
    -------
    scores : dict of validation_accuracy, test_accuracy, and the chosen settings
    right : (N,) bool, whether each of the N test snippets is classified correctly
    """
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    train, validation, test = (
        ([normalise(tokenizer, text) for text in split.texts[:limit]], split.labels[:limit])
        for split in split_reviews(fold)
    )
    best = word_classifier(train, validation, r"\S+")  # normalised text has spaces between words and punctuation
    right = best.predict(test[0]) == test[1]
    scores = {"validation_accuracy": float(best.score(*validation)), "test_accuracy": float(np.mean(right))}
    words, model = best
    return scores | {"ngrams": "1-2", "sublinear_tf": words.sublinear_tf, "C": model.C}, right
