"""A rank that dies, is late, goes another way or fails: all end soon and say where; training goes on from the file."""

from __future__ import annotations

import numpy as np
import pytest
from mpi_ranks import COMMON, assert_close, lines_of, namespace, run_ranks

import pycnn as pc

FIT = (
    COMMON
    + """
import os, signal
what, epochs = sys.argv[1], int(sys.argv[2])


def at_step(made, logs):
    if made.steps == 9 and dist.rank() == 1:
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "late":
            time.sleep(120)
        if what == "raise":
            raise LookupError("no such luck")
        if what == "term":
            os.kill(os.getpid(), signal.SIGTERM)


class Watch(pc.train.Callback):
    on_step_end = staticmethod(at_step)


made = trainer(plain)
images = data()
if what == "nan" and dist.rank() == 1:
    images.images[:] = images.images * np.float32(np.inf) * 0
made.fit(
    images,
    epochs=epochs,
    batch_size=8,
    checkpoint_dir="run",
    resume=what == "resume",
    callbacks=[Watch()],
    progress=False,
)
print(json.dumps({"rank": dist.rank(), "print": made.fingerprint(), "steps": made.steps}), flush=True)
if dist.rank() == 0:
    np.savez("state.npz", **state_of(made))
"""
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The fingerprint that two ranks come to."""
    return lines_of(run_ranks(2, FIT, tmp_path_factory.mktemp("whole"), "nothing", "3"))[0]["print"]


def failed(what, tmp_path, **env):
    outcome = run_ranks(2, FIT, tmp_path, what, "3", **env)
    assert outcome.code != 0, outcome.out
    return outcome.err


def whole():
    own = namespace()
    made = own["trainer"](own["plain"])
    made.fit(own["data"](), epochs=3, batch_size=8, progress=False)
    return made, own["state_of"](made)


def test_after_a_killed_rank_any_number_of_ranks_goes_on(uninterrupted, tmp_path):
    assert "rank 1" in failed("kill", tmp_path)  # says the launcher
    file = tmp_path / "run" / "last.safetensors"
    before = file.read_bytes()
    made, expected = whole()
    own = namespace()
    for count in (2, 3):
        file.write_bytes(before)
        rows = lines_of(run_ranks(count, FIT, tmp_path, "resume", "3"))
        assert {row["steps"] for row in rows.values()} == {made.steps}
        if count == 2:
            assert rows[0]["print"] == uninterrupted
        found = np.load(tmp_path / "state.npz")
        for name in expected:
            assert_close(found[name], expected[name], name, steps=made.steps)
    # And one process alone.
    file.write_bytes(before)
    resumed = own["trainer"](own["plain"])
    resumed.fit(own["data"](), epochs=3, batch_size=8, checkpoint_dir=file.parent, resume=True, progress=False)
    for name, values in own["state_of"](resumed).items():
        assert_close(values, expected[name], name, steps=made.steps)


def test_a_late_rank_is_named_with_what_was_waited_for(tmp_path):
    text = failed("late", tmp_path, PYCNN_DIST_TIMEOUT="4")
    assert "rank 0 of 2: step 10: rank 1 did not come within 4 s" in text


def test_an_error_of_one_rank_ends_all(tmp_path):
    text = failed("raise", tmp_path)
    assert "LookupError: no such luck" in text
    assert "rank 0 of 2: step 10: rank 1 failed: fit: LookupError: no such luck" in text
    assert pc.load(tmp_path / "run" / "last.safetensors").num_parameters


def test_a_rank_that_is_slow_to_tell_why_it_ends_is_waited_for(tmp_path):
    script = (
        """
import sys, time


def slow_hook(*args):
    time.sleep(1)
    sys.__excepthook__(*args)


sys.excepthook = slow_hook
"""
        + COMMON
        + """
made = trainer(plain)
made.step(data(4).images, np.zeros(4, int))
if dist.rank() == 1:
    raise LookupError("no such luck")
made.step(data(4).images, np.zeros(4, int))
"""
    )
    outcome = run_ranks(2, script, tmp_path)
    assert outcome.code != 0
    assert "rank 0 of 2: step 2: rank 1 failed: LookupError: no such luck" in outcome.err


def test_nan_on_one_rank_is_named_by_all(tmp_path):
    text = failed("nan", tmp_path)
    assert text.count("fit: the loss is nan on rank 1 of 2 at step 1") >= 1
    assert "no checkpoint was written" in text


def test_a_signal_to_one_rank_ends_all_at_one_step_with_a_checkpoint(uninterrupted, tmp_path):
    outcome = run_ranks(2, FIT, tmp_path, "term", "3")
    assert outcome.code != 0
    assert "did not come" not in outcome.err
    rows = lines_of(run_ranks(2, FIT, tmp_path, "resume", "3"))
    assert rows[0]["print"] == uninterrupted


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ("made.evaluate(data(6))", "evaluate"),
        ("made.steps = 7; made.step(data(4).images, np.zeros(4, int))", "step 8"),
    ],
)
def test_ranks_that_go_different_ways_are_told(other, place, tmp_path):
    script = f"""{COMMON}
made = trainer(plain)
made.step(data(4).images, np.zeros(4, int))
if dist.rank() == 0:
    {other}
else:
    made.step(data(4).images, np.zeros(4, int))
"""
    outcome = run_ranks(2, script, tmp_path)
    assert outcome.code != 0
    # By the rank that sees it first; the other may be told before it looks.
    texts = f"rank 0 of 2 is in {place}, rank 1 in step 2", f"rank 1 of 2 is in step 2, rank 0 in {place}"
    assert any(text in outcome.err for text in texts), outcome.err


def test_who_waits_for_a_rank_that_has_ended_is_told(tmp_path):
    script = (
        COMMON
        + """
made = trainer(plain)
made.step(data(4).images, np.zeros(4, int))
if dist.rank() == 0:
    made.evaluate(data(6))
"""
    )
    outcome = run_ranks(2, script, tmp_path)
    assert outcome.code != 0
    assert "rank 0 of 2: evaluate: rank 1 ended without it" in outcome.err
