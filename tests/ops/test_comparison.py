"""Comparisons and choosing: truth is 1, falsehood 0."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from kernel_paths import isas, run

from pycnn import functional
from pycnn.testing import check_gradients

ODD = np.array([-np.inf, -3.5, -0.0, 0.0, 1e-40, 1.0, 3e38, np.inf, np.nan], np.float32)
COMPARISONS = {
    functional.equal: np.equal,
    functional.greater: np.greater,
    functional.greater_equal: np.greater_equal,
    functional.less: np.less,
    functional.less_equal: np.less_equal,
}


@pytest.mark.parametrize("function", COMPARISONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("path", isas())
def test_comparisons_are_those_of_numpy(function, path):
    # The smallest numbers may count as 0.
    normal = np.delete(ODD, 4)
    a, b = normal[:, None], np.stack([normal, normal[::-1]])[:, None]
    found = run(function, a, b, path=path)
    tolerances.assert_bits(found, COMPARISONS[function](a, b).astype(np.float32))


@pytest.mark.parametrize("path", isas())
def test_what_is_not_chosen_may_be_anything(path):
    condition = (np.arange(81).reshape(9, 9) % 3 == 0).astype(np.float32)
    a, b = np.broadcast_to(ODD[:, None], (9, 9)), ODD[::-1]
    found = run(functional.where, condition, np.ascontiguousarray(a), np.ascontiguousarray(b), path=path)
    np.testing.assert_array_equal(found, np.where(condition != 0, a, b))


def test_gradients_of_choosing():
    rng = np.random.default_rng(0)
    x, a, b = rng.uniform(0.2, 1, (3, 4)) * rng.choice([-1, 1], (3, 4)), rng.normal(size=(4,)), rng.normal(size=(3, 1))

    def function(x, a, b):
        # The comparison itself has no gradient; what it chooses has.
        chosen = functional.where(functional.greater(x, np.zeros((), np.float64)), functional.multiply(x, a), b)
        return functional.multiply(chosen, chosen)

    check_gradients(function, x, a, b)
