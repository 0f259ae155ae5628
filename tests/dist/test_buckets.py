"""The thread that sums up gradients, with what stands in for the ranks."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tolerances import assert_bits

from pycnn.dist._buckets import BucketExchange


class Sums:
    """Adds the same again, when it is let go on."""

    beside = "communicator"

    def __init__(self):
        self.go_on = threading.Event()
        self.go_on.set()
        self.calls, self.threads, self.error = [], set(), None

    def combine_on(self, comm, flat, what, tag):
        assert comm == "communicator"
        assert self.go_on.wait(120)
        self.calls.append((what, tag))
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        flat += flat


def test_buckets_are_summed_in_order_while_the_caller_goes_on():
    sums = Sums()
    sums.go_on.clear()
    exchange = BucketExchange(sums)
    exchange.weight, exchange.what = 0.25, "step 3"
    buckets = [np.full(4, 1.0 + i, np.float32) for i in range(3)]
    for number, bucket in enumerate(buckets):
        exchange.begin(number, bucket)
    assert sums.calls == []  # begin did not wait
    sums.go_on.set()
    exchange.finish()
    assert sums.calls == [(f"step 3, sum of gradients, bucket {i}", i) for i in range(3)]
    assert sums.threads == {"pycnn-dist"}
    for number, bucket in enumerate(buckets):
        assert_bits(bucket, np.full(4, (1.0 + number) / 2, np.float32))


def test_gradients_that_do_not_count_are_nothing_whatever_they_are():
    exchange = BucketExchange(Sums())
    exchange.weight = 0.0
    bucket = np.array([np.nan, np.inf, 3.0], np.float32)
    exchange.begin(0, bucket)
    exchange.finish()
    assert_bits(bucket, np.zeros(3, np.float32))


def test_an_error_is_raised_where_the_sums_are_waited_for_and_ends_the_others():
    sums = Sums()
    sums.error = ConnectionError("gone")
    exchange = BucketExchange(sums)
    for number in range(3):
        exchange.begin(number, np.zeros(2, np.float32))
    with pytest.raises(ConnectionError, match="gone"):
        exchange.finish()
    assert len(sums.calls) == 1
    sums.error = None
    exchange.begin(0, np.zeros(2, np.float32))
    exchange.finish()
    assert len(sums.calls) == 2


def test_after_an_interruption_nobody_writes_to_the_gradients():
    sums = Sums()
    sums.go_on.clear()
    failures = []

    def note_failure(text):
        failures.append(text)
        sums.error = ConnectionError("given up")
        sums.go_on.set()

    sums.note_failure = note_failure
    exchange = BucketExchange(sums)
    exchange.what = "step 4"
    exchange.begin(0, np.ones(2, np.float32))
    wait = exchange._changed.wait

    def interrupted():
        exchange._changed.wait = wait
        raise KeyboardInterrupt

    exchange._changed.wait = interrupted
    with pytest.raises(KeyboardInterrupt):
        exchange.finish()
    assert failures == ["step 4: KeyboardInterrupt"]
    assert exchange._open == 0
    assert len(sums.calls) == 1
