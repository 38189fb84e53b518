"""The lean median and percentile are NumPy's, to the bit."""

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from holdwater.detectors.medians import median, percentile

FLOATS = arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e12, 1e12) | st.just(float("nan")))
WHOLE = arrays(np.int64, st.integers(1, 40), elements=st.integers(-(2**40), 2**40))


@given(FLOATS | WHOLE)
def test_is_the_median_of_numpy(values: np.ndarray) -> None:
    """Of floats with and without NaN, of whole numbers, and of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of an empty array
        expected = np.median(values)

    assert np.array_equal(median(values), expected, equal_nan=True)


NO_NAN = arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e12, 1e12))


@given(NO_NAN | WHOLE, st.sampled_from([0, 2, 10, 50, 98, 100]))
def test_is_the_percentile_of_numpy(values: np.ndarray, percent: int) -> None:
    """Of floats and of whole numbers."""
    assert percentile(values, percent) == np.percentile(values, percent)
