"""A baseline without a neural network: logistic regression on tf-idf weights."""

from ..data import load_reviews, load_tokenizer, normalise
from ..formats import PRETRAINED

SPLITS = ("validation", "test")
REGULARISATION = (1, 3, 10, 30, 100)  # inverse strength, scikit-learn's C


def tfidf_baseline(limit=None):
    """Logistic regression on words and pairs of words, weighted by tf-idf, with the splits of all other methods.

    The setting (plain or logarithmic counts, and C) is the one with the best validation accuracy.

    Parameters
    ----------
    limit : int or None, at most so many snippets of each split

    Returns
    -------
    dict: test_accuracy, validation_accuracy, and the setting that was chosen
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    splits = load_reviews("rotten_tomatoes")
    train, validation, test = ([normalise(tokenizer, text) for text in part.texts[:limit]] for part in splits)
    labels = [part.labels[:limit] for part in splits]
    tried = []
    for sublinear in (False, True):
        # In the normalised text blanks separate words and punctuation.
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=sublinear, token_pattern=r"\S+")
        x = [vectorizer.fit_transform(train), vectorizer.transform(validation), vectorizer.transform(test)]
        for c in REGULARISATION:
            model = LogisticRegression(C=c, max_iter=1000).fit(x[0], labels[0])
            scores = {f"{split}_accuracy": float(model.score(x[i], labels[i])) for i, split in enumerate(SPLITS, 1)}
            tried.append(scores | {"ngrams": "1-2", "sublinear_tf": sublinear, "C": c})
    return max(tried, key=lambda entry: entry["validation_accuracy"])
