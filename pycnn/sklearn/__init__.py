"""Convolutional nets as scikit-learn estimators: for its pipelines, grid searches and cross-validation.

scikit-learn, version 1.6 or newer, is needed: `pip install 'pycnn[sklearn]'`.

Example:
    >>> import numpy as np, pycnn.sklearn
    >>> from sklearn.datasets import load_digits  # doctest: +SKIP
    >>> X, y = load_digits(return_X_y=True)  # doctest: +SKIP
    >>> pycnn.sklearn.CNNClassifier(epochs=5).fit(X[:1500], y[:1500]).score(X[1500:], y[1500:])  # doctest: +SKIP
    0.97
"""

from pycnn.optional import optional

# Said here, with the way out, rather than by the first of the imports below.
optional("sklearn", extra="sklearn", who="pycnn.sklearn")

from pycnn.sklearn._classifier import CNNClassifier  # noqa: E402

__all__ = ["CNNClassifier"]
