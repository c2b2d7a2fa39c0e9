"""A baseline without a neural network: logistic regression on tf-idf weights of words and word pairs."""

STRENGTHS = (1, 3, 10, 30, 100)  # scikit-learn's C, the inverse regularisation strength


def word_classifier(train, validation, token_pattern, sublinear=(False, True), strengths=STRENGTHS, class_weight=None):
    """Fit a logistic regression on tf-idf weights of words and word pairs.

    Parameters
    ----------
    train, validation : each (list of N str, (N,) classes); `sublinear` and C are selected by validation accuracy
    token_pattern : regular expression that matches a word
    sublinear : the term counts to try: False for plain counts, True for logarithmic counts
    strengths : the values of C to try
    class_weight : None or "balanced", as for scikit-learn's LogisticRegression

    Returns
    -------
    scikit-learn's Pipeline of a fitted TfidfVectorizer and a fitted LogisticRegression

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is not installed.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    scores, tried = [], []
    for logarithmic in sublinear:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=logarithmic, token_pattern=token_pattern)
        weights, of_validation = words.fit_transform(train[0]), words.transform(validation[0])
        for c in strengths:
            model = LogisticRegression(C=c, max_iter=1000, class_weight=class_weight).fit(weights, train[1])
            scores.append(model.score(of_validation, validation[1]))
            tried.append(make_pipeline(words, model))
    return tried[scores.index(max(scores))]
