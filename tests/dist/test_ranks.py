"""Training in several ranks against training in one process, and what happens when a rank fails."""

from __future__ import annotations

import numpy as np
import pytest
from mpi_ranks import COMMON, assert_close, lines_of, namespace, run_ranks
from tolerances import assert_bits

TRAIN = (
    COMMON
    + """
made = augmented()
row = made.history.rows[-1]
if dist.rank() == 0:
    np.savez("state.npz", **state_of(made))
print(json.dumps({"rank": dist.rank(), "size": dist.size(), "print": made.fingerprint(), "row": row,
                  "measured": made.evaluate(data(11), batch_size=4)}), flush=True)
"""
)


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_train_as_one_process_does(count, tmp_path):
    """Augmentation, mixup, clipping, averages; 45 images in batches of 6 leave a last one of 3."""
    rows = lines_of(run_ranks(count, TRAIN, tmp_path))
    if count == 2:
        again = lines_of(run_ranks(count, TRAIN, tmp_path))
        assert rows[0]["print"] == again[0]["print"], "the same number of ranks gives the same bits"
    assert sorted(rows) == list(range(count))
    alone = namespace()["augmented"]()
    first = rows[0]
    for row in rows.values():
        assert (row["size"], row["print"], row["row"], row["measured"]) == (
            count,
            first["print"],
            first["row"],
            first["measured"],
        )
    found = np.load(tmp_path / "state.npz")
    expected = namespace()["state_of"](alone)
    assert set(found) == set(expected)
    for name in expected:
        assert_close(found[name], expected[name], name, steps=alone.steps)
    for name, value in alone.history.rows[-1].items():
        if name not in ("seconds", "images_per_second", "data_wait_percent"):
            assert_close(first["row"][name], value, name, steps=alone.steps)
    for name, value in alone.evaluate(namespace()["data"](11)).items():
        assert_close(first["measured"][name], value, name, steps=alone.steps)


def test_running_statistics_are_means_over_ranks_and_the_same_on_all(tmp_path):
    script = (
        COMMON
        + """
made = trainer(normed)
x, y = data(8).images, np.asarray(data(8).labels)
part = slice(0, 6) if dist.rank() == 0 else slice(6, 8)
values = made.step(x[part], y[part])
norm = {name: p.numpy().tolist() for name, p in made.net.named_tensors() if p.is_buffer}
weight = next(iter(made.net.parameters())).numpy().ravel().tolist()
print(json.dumps({"rank": dist.rank(), "norm": norm, "loss": values["loss"], "weight": weight}), flush=True)
"""
    )
    rows = lines_of(run_ranks(2, script, tmp_path))
    assert rows[0]["norm"] == rows[1]["norm"]
    assert rows[0]["loss"] == rows[1]["loss"]
    assert rows[0]["weight"] == rows[1]["weight"]
    # Each rank's own, from the weights of rank 0.
    own = namespace()
    x, y = own["data"](8).images, np.asarray(own["data"](8).labels)
    alone = []
    for part in (slice(0, 6), slice(6, 8)):
        made = own["trainer"](own["normed"])
        loss = made.step(x[part], y[part])["loss"]
        alone.append((loss, {name: p.numpy().copy() for name, p in made.net.named_tensors() if p.is_buffer}))
    for name, value in alone[0][1].items():
        if name.endswith("num_batches_tracked"):
            assert rows[0]["norm"][name] == value.tolist()
        else:
            assert_close(rows[0]["norm"][name], 0.75 * value + 0.25 * alone[1][1][name], name, steps=1)
    assert_close(rows[0]["loss"], 0.75 * alone[0][0] + 0.25 * alone[1][0], "loss", steps=1)


def test_dropout_differs_between_ranks_and_checkpoints_keep_the_seed(tmp_path):
    script = (
        COMMON
        + """
made = trainer(
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), loss=lambda s, y: nn.functional.cross_entropy(s, y)
)
made.step(data(4).images, np.asarray(data(4).labels))
made.save_checkpoint("net.safetensors")
seed = int(made.variables["train.seed"].numpy()[0])
print(json.dumps({"rank": dist.rank(), "seed": seed}), flush=True)
"""
    )
    rows = lines_of(run_ranks(2, script, tmp_path))
    assert rows[0]["seed"] == 3
    assert rows[1]["seed"] != 3
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


FUNCTIONS = (
    COMMON
    + """
rank, size = dist.rank(), dist.size()
sums = dist.allreduce(np.arange(7, dtype=np.float32) * 10.0**rank)
most = dist.allreduce(np.array([[rank, -rank]]), "max")
mean = dist.allreduce(rank, "mean")
given = dist.broadcast(np.full((2, 2), rank + 5, np.int32) if rank == 1 else None, root=1)
dist.barrier()
errors = []
for call in (
    lambda: dist.allreduce(np.zeros(3 + (rank == 2))),
    lambda: dist.allreduce(1.0, "max" if rank == 1 else "sum"),
    lambda: dist.broadcast(1.0, root=int(rank == 0)),
    lambda: trainer(plain if rank != 1 else normed).fit(data(), epochs=1, batch_size=6),
    lambda: trainer(plain).fit(data(45 + (rank == 2)), epochs=1, batch_size=6),
    lambda: trainer(plain).fit(data(), epochs=1, batch_size=2),
    lambda: trainer(plain).fit(data(), epochs=1 + rank, batch_size=6),
    lambda: trainer(plain, optimizer=optim.SGD(0.1 * (1 + rank))).step(data(4).images, np.zeros(4, int)),
    lambda: trainer(plain).step(data(4).images.astype(np.uint8 if rank == 1 else np.float32), np.zeros(4, int)),
    lambda: trainer(plain, device="cuda").step(data(4).images, np.zeros(4, int)),
):
    try:
        call()
        errors.append(None)
    except pc.errors.ArgumentError as error:
        errors.append(str(error))
again = dist.allreduce(1.0)  # all is well after such errors
print(json.dumps({"rank": rank, "sums": sums.tolist(), "most": most.tolist(), "mean": float(mean),
                  "given": given.tolist(), "type": given.dtype.name, "errors": errors, "again": float(again)}),
      flush=True)
"""
)


def test_functions_and_errors_that_all_ranks_raise(tmp_path):
    rows = lines_of(run_ranks(3, FUNCTIONS, tmp_path))
    parts = [np.arange(7, dtype=np.float32) * 10.0**rank for rank in range(3)]
    for row in rows.values():
        assert_bits(np.array(row["sums"], np.float32), parts[0] + parts[1] + parts[2])
        assert row["most"] == [[2, 0]]
        assert row["mean"] == 1.0
        assert (row["given"], row["type"]) == ([[6, 6], [6, 6]], "int32")
        assert row["again"] == 3.0
        assert row["errors"] == rows[0]["errors"]
    expected = [
        "allreduce: rank 2 has shape [4], rank 0 has [3]",
        "allreduce: rank 1 has op 'max', rank 0 has 'sum'",
        "broadcast: the ranks name different roots, in their order [1, 0, 0]",
        "fit: rank 1 has parameters",
        "fit: rank 2 has samples 46, rank 0 has 45",
        "fit: batch_size 2 is shared among 3 ranks",
        "fit: rank 1 has epochs 2, rank 0 has 1",
        "step: rank 1 has settings 'SGD(lr=0.2",
        "step 1: rank 1 has image type uint8, rank 0 has float32",
        "Trainer: device is 'cuda', several processes train on the CPU only so far",
    ]
    assert len(rows[0]["errors"]) == len(expected)
    for found, text in zip(rows[0]["errors"], expected, strict=True):
        assert text in found
