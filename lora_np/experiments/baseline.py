"""A baseline without a neural network: logistic regression on tf-idf weights."""

from itertools import product

from ..data import load_reviews, load_tokenizer, normalise
from ..formats import PRETRAINED

REGULARISATION = (1, 3, 10, 30, 100)  # inverse strength, scikit-learn's C


def tfidf_baseline(limit=None):
    """Logistic regression on words and pairs of words, weighted by tf-idf, with the splits of all other methods.

    The setting (plain or logarithmic counts, and C) is the one with the best validation accuracy. At most `limit`
    snippets of each split are used. Returns a dict: validation_accuracy, test_accuracy, and the setting.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    train, validation, test = (
        ([normalise(tokenizer, text) for text in split.texts[:limit]], split.labels[:limit])
        for split in load_reviews("rotten_tomatoes")
    )
    tried = []
    for sublinear, c in product((False, True), REGULARISATION):
        # In the normalised text blanks separate words and punctuation.
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=sublinear, token_pattern=r"\S+")
        model = make_pipeline(words, LogisticRegression(C=c, max_iter=1000)).fit(*train)
        scores = {"validation_accuracy": model.score(*validation), "test_accuracy": model.score(*test)}
        tried.append(scores | {"ngrams": "1-2", "sublinear_tf": sublinear, "C": c})
    return max(tried, key=lambda entry: entry["validation_accuracy"])
