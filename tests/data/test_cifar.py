"""CIFAR-10 and CIFAR-100: binary and Python layouts, damaged and hostile ones."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import time
from collections import OrderedDict

import numpy as np
import pytest

from pycnn.data import cifar10, cifar100
from pycnn.data._pickled import read_pickled
from pycnn.errors import ArgumentError, FileError, FormatError

FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def rows(count, first=0):
    """Planes of red, green and blue that tell record, channel, row and column."""
    planes = np.arange(count)[:, None, None, None] * 5 + np.array([0, 80, 160])[None, :, None, None] + first
    ramp = np.arange(32)[:, None] + 2 * np.arange(32)
    return ((planes + ramp) % 256).astype(np.uint8).reshape(count, 3072)


def write_binary(folder, count=2):
    for n, name in enumerate(FILES):
        labels = np.full((count, 1), n, np.uint8)
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, rows(count, n)]).tobytes())


def write_python(folder, count=2, protocol=2, **changes):
    for n, name in enumerate(FILES):
        batch = {
            "batch_label": f"batch {n}",
            "labels": [n] * count,
            "data": rows(count, n),
            "filenames": [f"{name}_{i}.png" for i in range(count)],
        }
        (folder / name).write_bytes(pickle.dumps(batch | changes, protocol=protocol))


def python2_pickle(array, labels):
    """As Python 2 and NumPy 1 wrote the original files: texts as bytes, protocol 2."""
    out = io.BytesIO()

    def text(value):
        out.write(b"U" + bytes([len(value)]) + value)

    out.write(b"\x80\x02}q\x01(")
    text(b"batch_label")
    text(b"training batch 1 of 5")
    text(b"labels")
    out.write(b"]q\x02(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e")
    text(b"data")
    out.write(b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\0\x85")
    text(b"b")
    out.write(b"\x87R(K\x01")
    height, width = array.shape
    out.write(b"J" + height.to_bytes(4, "little") + b"J" + width.to_bytes(4, "little") + b"\x86")
    out.write(b"cnumpy\ndtype\n")
    text(b"u1")
    out.write(b"K\0K\x01\x87R(K\x03")
    text(b"|")
    out.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89")
    data = array.tobytes()
    out.write(b"T" + len(data).to_bytes(4, "little") + data + b"tb")
    text(b"filenames")
    out.write(b"](")
    text(b"a.png")
    out.write(b"eu.")
    return out.getvalue()


def check(train, test, count=2):
    assert train.images.shape == (5 * count, 32, 32, 3)
    assert train.labels.tolist() == np.repeat(np.arange(5), count).tolist()
    assert test.labels.tolist() == [5] * count
    assert train.class_names[3] == "cat"
    expected = rows(count, 2).reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(train.images[2 * count : 3 * count], expected)


def test_binary_version(tmp_path):
    write_binary(tmp_path)
    check(*cifar10(tmp_path))


@pytest.mark.parametrize("protocol", range(6))
def test_python_version_of_every_protocol(tmp_path, protocol):
    write_python(tmp_path, protocol=protocol)
    check(*cifar10(tmp_path))


def test_python_version_as_python_2_wrote_it(tmp_path):
    for n, name in enumerate(FILES):
        data = python2_pickle(rows(3, n), [n] * 3)
        # The forgery is what Python itself reads.
        assert pickle.loads(data, encoding="bytes")[b"labels"] == [n] * 3  # noqa: S301
        (tmp_path / name).write_bytes(data)
    check(*cifar10(tmp_path), count=3)


@pytest.mark.parametrize(
    ("name", "write"), [("cifar-10-batches-bin", write_binary), ("cifar-10-batches-py", write_python)]
)
def test_folder_that_the_archive_unpacks_to_is_found(tmp_path, name, write):
    (tmp_path / name).mkdir()
    write(tmp_path / name)
    check(*cifar10(tmp_path))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes are not a whole number of records"),
        (bytes(2 * 3073 - 1), r"record 1 is cut off"),
        (bytes(2 * 3073 + 1), r"record 2 is cut off"),
        (bytes(3073) + b"\x0a" + bytes(3072), r"record 1 \(byte 3073\): label 10 is above 9"),
    ],
)
def test_damaged_binaries_are_refused_by_record(tmp_path, data, text):
    write_binary(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(data)
    with pytest.raises(FormatError, match=text) as caught:
        cifar10(tmp_path)
    assert "data_batch_3.bin" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": [1]}, "'labels' is 1 labels, expected a list of 2"),
        ({"labels": [1, 10]}, "record 1: label 10 is not in 0..9"),
        ({"labels": [1, -1]}, "record 1: label -1"),
        ({"labels": [1, True]}, "record 1: label True"),
        ({"labels": [1, 2.0]}, "record 1: label 2.0"),
        ({"labels": {}}, "'labels' is dict"),
        ({"data": rows(2)[:, :-1]}, r"'data' is \(2, 3071\)"),
        ({"data": rows(0), "labels": []}, r"'data' is \(0, 3072\)"),
        ({"data": [1, 2]}, "'data' is list"),
        ({"data": None}, "'data' is NoneType"),
        ({"data": rows(2).astype(np.int64)}, "a call of dtype with"),
        ({"data": np.array([[None] * 3072] * 2)}, "a call of dtype with"),
    ],
)
def test_python_version_with_other_content_is_refused(tmp_path, changes, text):
    write_python(tmp_path, **changes)
    with pytest.raises(FormatError, match=text) as caught:
        cifar10(tmp_path)
    assert "data_batch_1" in str(caught.value)


def test_missing_files_are_named(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(FileError, match=r"missing data_batch_2\.bin, .*test_batch\.bin"):
        cifar10(tmp_path)
    with pytest.raises(FileError, match="absent"):
        cifar10(tmp_path / "absent")
    with pytest.raises(
        FileError, match=r"cifar100: neither the binary nor the Python version \(for example train\.bin"
    ):
        cifar100(tmp_path)


# ---- CIFAR-100


@pytest.mark.parametrize("labels", ["fine", "coarse"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100(tmp_path, version, labels, named):
    folder = tmp_path / f"cifar-100-{version}"
    folder.mkdir()
    fine, coarse = np.array([99, 0, 42]), np.array([19, 0, 7])
    names = {"fine": [f"f{i}" for i in range(100)], "coarse": [f"c{i}" for i in range(20)]}
    for part in ("train", "test"):
        if version == "binary":
            data = np.hstack([coarse[:, None], fine[:, None], rows(3)]).astype(np.uint8)
            (folder / f"{part}.bin").write_bytes(data.tobytes())
        else:
            content = {"fine_labels": fine.tolist(), "coarse_labels": coarse.tolist(), "data": rows(3)}
            (folder / part).write_bytes(pickle.dumps(content))
    if named and version == "binary":
        for kind, lines in names.items():
            (folder / f"{kind}_label_names.txt").write_text("\n".join(lines) + "\n")
    elif named:
        content = {f"{kind}_label_names": lines for kind, lines in names.items()}
        (folder / "meta").write_bytes(pickle.dumps(content))
    train, test = cifar100(tmp_path, labels=labels)
    assert train.labels.tolist() == test.labels.tolist() == (fine if labels == "fine" else coarse).tolist()
    assert train.class_names == tuple(names[labels] if named else map(str, range(len(names[labels]))))
    np.testing.assert_array_equal(train.images, rows(3).reshape(3, 3, 32, 32).transpose(0, 2, 3, 1))


def test_cifar100_refuses_other_labels_and_too_few_names(tmp_path):
    with pytest.raises(ArgumentError, match="labels must be 'fine' or 'coarse', got 'both'"):
        cifar100(tmp_path, labels="both")
    (tmp_path / "train.bin").write_bytes(bytes(3074))
    (tmp_path / "test.bin").write_bytes(b"\0\x64" + bytes(3072))
    with pytest.raises(FormatError, match="label 100 is above 99"):
        cifar100(tmp_path)
    (tmp_path / "fine_label_names.txt").write_text("a b c")
    with pytest.raises(FormatError, match="3 names, expected 100"):
        cifar100(tmp_path)


# ---- Hostile pickles


class Call:
    """Unpickling would call the function."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


def refused(data, text="."):
    with pytest.raises(FormatError, match=text) as caught:
        read_pickled(data, where="'x'")
    assert "'x'" in str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, open, getattr, np.load, np.frombuffer, bytearray, OrderedDict])
def test_functions_are_never_called(tmp_path, function, protocol):
    target = tmp_path / "made"
    arguments = {
        os.system: (f"touch {target}",),
        eval: (f"open({str(target)!r}, 'w')",),
        open: (str(target), "w"),
    }.get(function, (b"x",))
    data = pickle.dumps({"data": Call(function, *arguments)}, protocol=protocol)
    refused(data, "it names '")
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "damaged pickle"),
        (b"\x80\x04\x95", "damaged pickle"),
        (b"\x80\x06}.", "protocol 6"),
        (b"K\x01.", "holds int, expected a dict"),
        (b"}}.", "values are left over"),
        (b"(.", "a mark out of place"),
        (b"}", "damaged pickle"),
        (b".", "damaged pickle"),
        (b"}0.", "instruction POP"),
        (b"}2.", "instruction DUP"),
        (b"}Pid\n.", "instruction PERSID"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"(ios\nsystem\n.", "instruction INST"),
        (b"cos\nsystem\n(S'true'\ntR.", "it names 'os.system'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(tR.", r"a call of reconstruct with \(\)"),
        (b"cnumpy\nndarray\n)R.", "a call of ndarray"),
        (b"cnumpy\ndtype\n(S'O8'\ntR.", "a call of dtype"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "a call of encode"),
        (b"c__builtin__\nbytes\n(Ieeee\ntR.", "damaged pickle"),
        (b"c__builtin__\nbytes\n(I99999999999\ntR.", "a call of bytes"),
        (b"cnumpy.core.numeric\n_frombuffer\n(S'ab'\nK\0K\x02\x85VC\ntR.", "elements are not uint8"),
        (b"}]K\x01b.", "a list with a state"),
        (b"}}b.", "a dict with a state"),
        (b"K\x01K\x02a.", "int where a list is needed"),
        (b"(K\x01u.", "damaged pickle"),
        (b"}(K\x01K\x02u.", "a key that is a int"),
        (b"}(S'a'\nu.", "a key without a value"),
        (b"h\x05.", "damaged pickle"),
        (b"}]tR.", "no mark"),
        (b"}T\xff\xff\xff\x7fabc.", "damaged pickle"),
        (b"}\x8e" + b"\xff" * 7 + b"\x7f.", "damaged pickle"),
        (b"}I" + b"9" * 5000 + b"\n.", "damaged pickle"),
    ],
)
def test_other_pickles_are_refused(data, text):
    refused(data, text)


def array_with(state):
    head = pickletools.optimize(pickle.dumps({"data": np.zeros((2, 3), np.uint8)}, protocol=2))
    start = head.index(b"(K\x01K\x02K\x03\x86")
    end = head.rindex(b"b")
    return head[:start] + state + head[end:]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (b"(K\x01K\x02K\x03\x86cnumpy\ndtype\n(S'u1'\ntR\x89S'abcde'\nt", r"shape \(2, 3\) with 5 bytes"),
        (b"(K\x01J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86cnumpy\ndtype\n(S'u1'\ntR\x89S'abcdef'\nt", "shape"),
        (b"(K\x01(" + b"K\x01" * 40 + b"tcnumpy\ndtype\n(S'u1'\ntR\x89S'a'\nt", "shape"),
        (b"(K\x01]cnumpy\ndtype\n(S'u1'\ntR\x89S''\nt", "shape"),
        (b"(K\x01K\x02\x85cnumpy\ndtype\n(S'u1'\ntR\x89](K\x01K\x02et", "not made of bytes"),
        (b"(K\x01K\x02\x85K\x00\x89S'ab'\nt", "elements are not uint8"),
        (b"(K\x01t", "another form"),
        (b"]", "another form"),
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(state, text):
    refused(array_with(state), text)


# A pair of pairs of pairs: 240 bytes that hold 2 ** 60 numbers.
DOUBLED = b"K\x01" + b"q\x00h\x00\x86" * 60


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (array_with(b"(K\x01" + DOUBLED + b"cnumpy\ndtype\n(S'u1'\ntR\x89S'a'\nt"), "shape"),
        (b"cnumpy\ndtype\n(" + DOUBLED + b"tR.", "a call of dtype"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(" + DOUBLED + b"tR.", "a call of reconstruct"),
        (b"c_codecs\nencode\n(Vx\n" + DOUBLED + b"tR.", "a call of encode"),
        (b"cnumpy.core.numeric\n_frombuffer\n(NNN" + DOUBLED + b"tR.", "a call of frombuffer"),
        (b"\x80\x04" + DOUBLED + DOUBLED + b"\x93.", "it names"),
        (b"}" + DOUBLED + b"Ns.", "a key that is a tuple"),
    ],
)
def test_endless_values_are_refused_at_once(data, text):
    started = time.process_time()
    refused(data, text)
    assert time.process_time() - started < 5


def test_an_endless_label_is_refused_at_once(tmp_path):
    write_python(tmp_path)
    content = b"}(Vdata\n" + pickle.dumps(rows(1), protocol=2)[2:-1] + b"Vlabels\n](" + DOUBLED + b"eu."
    (tmp_path / FILES[0]).write_bytes(content)
    with pytest.raises(FormatError, match="record 0: label tuple is not in 0..9"):
        cifar10(tmp_path)


def test_one_text_in_many_places_is_held_once():
    text = b"a" * 10_000
    again = b"}Vx\n]q\x01(T" + len(text).to_bytes(4, "little") + text + b"q\x02" + b"h\x02" * 1000 + b"es."
    texts = read_pickled(again, where="x")["x"]
    assert len(texts) == 1001
    assert len(set(map(id, texts))) == 1
    call = b"c_codecs\nencode\nq\x01(V" + text + b"\nVlatin1\ntq\x02"
    assert read_pickled(b"}Vx\n" + call + b"Rs.", where="x") == {"x": text.decode()}
    refused(b"](" + call + b"h\x01h\x02R" * 1000 + b"e.", "more bytes than the file has")


def test_memo_numbers_cost_no_memory():
    assert read_pickled(b"}r\xff\xff\xff\x7f.", where="x") == {}


def test_many_instructions_end_in_time():
    started = time.process_time()
    refused(b"}" + b"N" * 1_100_000 + b".", "more than 1000000 instructions")
    assert time.process_time() - started < 20


def test_lists_in_lists_and_shared_values_are_read():
    names = ["a", "b"]
    content = {"x": names, "y": names, "t": (1, 2), "z": None, "deep": [[1], [2]], "f": 0.5, "big": 2**70}
    for protocol in range(6):
        assert read_pickled(pickle.dumps(content, protocol=protocol), where="x") == content


def test_every_cut_of_a_good_file_is_refused():
    data = pickle.dumps({"labels": [1, 2], "data": np.zeros((2, 2), np.uint8)}, protocol=2)
    for end in range(len(data)):
        refused(data[:end])


def test_changed_bytes_never_do_harm(rng):
    data = bytearray(pickle.dumps({"labels": [1, 2], "data": np.zeros((2, 2), np.uint8)}, protocol=2))
    for _ in range(3000):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        try:
            result = read_pickled(bytes(changed), where="x")
        except FormatError:
            continue
        assert isinstance(result, dict)
