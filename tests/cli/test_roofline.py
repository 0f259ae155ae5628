"""Bounds of steps against numbers computed by hand, and the picture of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kernel_paths import is_for_bfloat16

import pycnn
from pycnn.benchmark import BenchReport, ComputePeak, Layer, MemoryPeak, Peaks, Timing, bound, draw_roofline
from pycnn.errors import ArgumentError, FileError, UnsupportedError

# 100 GFLOP/s; 400, 200 and 25 GB/s: each time the faster of the two rates.
PEAKS = Peaks(
    cpu="a processor",
    isa="avx2",
    threads=2,
    compute=(ComputePeak("float32", "avx2", 100.0), ComputePeak("bfloat16", "avx512_bf16", 200.0),
             ComputePeak("bfloat16", "amx_bf16", 1600.0)),
    memory=(MemoryPeak("L1", 64_000, 400.0, 300.0), MemoryPeak("L2", 1_000_000, 150.0, 200.0),
            MemoryPeak("memory", 0, 25.0, 20.0)),
    pycnn="",
    time="",
    busy=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("flops", "size_bytes", "seconds", "by"),
    [
        (2e9, 1e9, 0.04, "memory"),  # 2 FLOP/byte, below the ridge at 4: 1 GB at 25 GB/s
        (8e9, 1e9, 0.08, "compute"),  # above it: 8 GFLOP at 100 GFLOP/s
        (4e9, 1e9, 0.04, "compute"),  # on it
        (0, 2_500_000, 1e-4, "memory"),
        (0, 64_000, 1.6e-7, "L1"),  # just fits: 64 kB at 400 GB/s
        (0, 64_001, 64_001 / 200e9, "L2"),
        (0, 1_000_000, 5e-6, "L2"),
        (0, 1_000_001, 1_000_001 / 25e9, "memory"),
        (1000, 0, 1e-8, "compute"),
        (0, 0, 0.0, ""),
    ],
)
def test_bound_by_hand(flops, size_bytes, seconds, by):
    least = bound(flops, size_bytes, PEAKS)
    assert least.seconds == pytest.approx(seconds, rel=1e-12)
    assert least.by == by


def test_bound_of_another_type_takes_its_fastest_unit():
    assert bound(16e9, 0, PEAKS, dtype="bfloat16").seconds == pytest.approx(0.01)


@pytest.mark.parametrize(("flops", "size_bytes"), [(-1, 0), (0, -1)])
def test_negative_work_is_refused(flops, size_bytes):
    with pytest.raises(ArgumentError, match="-1"):
        bound(flops, size_bytes, PEAKS)


@pytest.fixture
def known_peaks(monkeypatch):
    """`bench` finds these peaks, whatever the machine."""
    asked = []

    def peaks(**settings):
        asked.append(settings)
        return replace(PEAKS, threads=settings["threads"])

    monkeypatch.setattr("pycnn.benchmark._bench.machine_peaks", peaks)
    monkeypatch.setattr("pycnn.benchmark._bench._ROUND_SECONDS", 0.01)
    return asked


def test_report_holds_every_step_against_its_bound(known_peaks):
    report = pycnn.bench(pycnn.models.lenet5(), batch_size=8, layers=True, rounds=1, threads=1)
    steps = [layer for layer in report.layers if layer.op]
    conv2 = next(step for step in steps if (step.name, step.op) == ("conv2", "conv2d"))
    # 10 x 10 x 16 outputs of 5 x 5 x 6 products, bias and activation.
    assert conv2.flops == 8 * (2 * 10 * 10 * 16 * 5 * 5 * 6 + 2 * 10 * 10 * 16)
    for step in steps:
        least = bound(step.flops, step.bytes, PEAKS)
        assert step.bound == least.seconds
        assert step.bound_by == least.by
        if least.by:
            assert step.percent_of_bound == pytest.approx(100 * least.seconds / step.seconds)
            assert step.gflops == pytest.approx(step.flops / step.seconds / 1e9)
            assert step.gbytes == pytest.approx(step.bytes / step.seconds / 1e9)
    (timing,) = report.timings
    assert timing.bound == pytest.approx(sum(step.bound for step in steps))
    assert timing.percent_of_bound == pytest.approx(100 * timing.bound / timing.median)
    assert timing.gflops == pytest.approx(sum(step.flops for step in steps) / timing.median / 1e9)
    assert report.layers[-1].percent_of_bound is None
    assert report.peaks == (replace(PEAKS, threads=1),)


def test_training_counts_both_gradients_of_a_convolution(known_peaks):
    report = pycnn.bench(pycnn.models.lenet5(), batch_size=4, train=True, layers=True, rounds=1, threads=1)
    macs = 4 * 10 * 10 * 16 * 5 * 5 * 6
    flops = {step.op: step.flops for step in report.layers if step.name.startswith(("conv2", "grad.conv2"))}
    assert flops["conv2d_grad_input"] == 2 * macs
    assert flops["conv2d_grad_weight"] == 2 * macs + 4 * 10 * 10 * 16  # and the bias
    updates = [step for step in report.layers if step.op == "sgd_update"]
    assert updates
    assert all(step.flops > 0 and step.bytes > 0 for step in updates)


def test_better_kernels_come_with_the_reason_for_their_refusal(known_peaks):
    report = pycnn.bench(pycnn.models.lenet5(), layers=True, rounds=1, threads=1, isa="baseline")
    better = {refusal.variant for step in report.layers for refusal in step.refused}
    assert all(refusal.reason for step in report.layers for refusal in step.refused)
    names = [name for name in pycnn._core.variants("conv2d") if not is_for_bfloat16(name)]
    conv = next(step for step in report.layers if step.op == "conv2d")
    assert [refusal.variant for refusal in conv.refused] == names[: names.index(conv.variant)]
    text = str(report)
    assert not better or "better kernels that were refused" in text
    assert all(name in text for name in better)


def test_kernels_behind_the_chosen_one_are_not_called_better(known_peaks):
    # AVX2 has no unit for bfloat16: float32 kernels take these between conversions.
    net = pycnn.nn.Sequential(pycnn.nn.Conv2d(6, 6, 3, groups=6), pycnn.nn.Flatten(), pycnn.nn.Linear(6 * 6 * 6, 4))
    report = pycnn.bench(net, input_shape=(8, 8, 6), layers=True, rounds=1, threads=1, isa="avx2",
                         dtype="bfloat16", emulate_bfloat16=True)  # fmt: skip
    widened = [step for step in report.layers if step.variant.endswith(".widened")]
    assert {step.op for step in widened} >= {"conv2d", "dense"}
    for step in widened:
        names = pycnn._core.variants(step.op)
        place = names.index(step.variant.removesuffix(".widened"))
        refused = [names.index(refusal.variant) for refusal in step.refused]
        assert refused == sorted(refused)
        assert all(index < place for index in refused), step
        assert not any(refusal.variant.endswith(".portable") for refusal in step.refused)
    assert "portable" not in str(report).partition("better kernels")[2]


def test_peaks_are_looked_up_for_each_setting_or_left_out(known_peaks):
    net = pycnn.models.lenet5()
    report = pycnn.bench(net, rounds=1, threads=[1, 2], isa="baseline", peaks="renew")
    assert [(s["threads"], s["isa"], s["renew"]) for s in known_peaks] == [
        (t.threads, "baseline", True) for t in report.timings
    ]
    known_peaks.clear()
    report = pycnn.bench(net, rounds=1, peaks=None, layers=True)
    assert known_peaks == []
    assert report.peaks == ()
    assert report.timings[0].percent_of_bound is None
    assert report.timings[0].gflops > 0
    assert {layer.bound for layer in report.layers} == {None}
    assert "% of bound" in str(report)


def test_other_words_than_the_two_for_peaks_are_refused():
    with pytest.raises(ArgumentError, match=r"'always'.*'keep', 'renew' or None"):
        pycnn.bench(pycnn.models.lenet5(), peaks="always")


# ---- The picture


def layer(name, op, seconds, flops, size_bytes):
    least = bound(flops, size_bytes, PEAKS)
    return Layer(
        name=name, op=op, variant=f"{op}.direct", seconds=seconds, share=seconds / 0.01, gflops=flops / seconds / 1e9,
        gbytes=size_bytes / seconds / 1e9, flops=flops, bytes=size_bytes, bound=least.seconds, bound_by=least.by,
        percent_of_bound=100 * least.seconds / seconds,
    )  # fmt: skip


@pytest.fixture
def report():
    timing = Timing(threads=2, isa="avx2", runs=3, median=0.01, minimum=0.01, p10=0.01, p90=0.01,
                    images_per_second=400.0, noise=0.0, gflops=40.0, bound=0.005, percent_of_bound=50.0)  # fmt: skip
    layers = (
        layer("conv1", "conv2d", 5e-3, 300_000_000, 2_000_000),
        layer("pool1", "max_pool2d", 3e-3, 5_000_000, 20_000_000),
        layer("a.long.name.of.a.layer.deep.inside.conv2", "conv2d_grad_weight", 1.5e-3, 90_000_000, 900_000),
        layer("tiny", "increment", 1e-7, 1, 16),
        layer("copy", "copy", 4e-4, 0, 4_000_000),
        Layer("other", "", "", 1e-4, 0.01, 0.0, 0.0),
    )
    return BenchReport(
        name="Net", shape=(4, 8, 8, 3), train=False, timings=(timing,), layers=layers, layers_wall=0.01,
        environment={"cpu": "a processor"}, peaks=(PEAKS,),
    )  # fmt: skip


def test_picture_has_roofs_points_units_and_names(report):
    pytest.importorskip("matplotlib")
    figure = draw_roofline(report, name="net")
    left, right = figure.axes
    assert left.get_ylabel() == "GFLOP/s"
    assert "FLOP/byte" in left.get_xlabel()
    assert "ms" in right.get_xlabel()
    title = figure.get_suptitle()
    for part in ("net, inference, batch 4 of 8 x 8 x 3, float32, 2 threads", "10.00 ms", "50 % of the bound"):
        assert part in title
    # A roof goes from the bandwidth's slope to the ridge, where compute takes over.
    roofs = {line.get_label(): line.get_xydata() for line in left.lines}
    for level in PEAKS.memory:
        (x0, y0), (x1, y1) = roofs[f"{level.level} {level.gbytes:,.0f} GB/s"]
        assert y0 / x0 == pytest.approx(level.gbytes)
        assert (x1, y1) == pytest.approx((100.0 / level.gbytes, 100.0))
    points = [tuple(offset) for drawn in left.collections for offset in drawn.get_offsets()]
    # The copy has no operations and the tiny step no time to speak of.
    assert sorted(points) == sorted([(150.0, 60.0), (0.25, 5 / 3), (100.0, 60.0)])
    names = [text.get_text() for text in right.get_yticklabels()]
    assert names[0] == "conv1 conv2d  1"
    assert names[2].endswith("conv2d_grad_weight  3")
    texts = [text.get_text() for text in right.texts]
    assert texts[:2] == ["60 % (compute)", "27 % (memory)"]


def test_step_above_its_bound_is_in_the_picture_and_explained(report):
    pytest.importorskip("matplotlib")
    fast = layer("winograd", "conv2d", 1e-3, 400_000_000, 1_000_000)
    assert fast.percent_of_bound == pytest.approx(400.0)
    assert "above 100 %" not in str(report)
    report = replace(report, layers=(fast, *report.layers))
    assert "above 100 %" in str(report)
    left, right = draw_roofline(report).axes
    assert left.get_ylim()[1] > 400.0
    # What the machine needs at least is drawn no longer than what was measured.
    assert max(bar.get_width() for bar in right.patches) == pytest.approx(5.0)
    assert "400 % (compute)" in [text.get_text() for text in right.texts]


@pytest.mark.parametrize("long_names", [False, True])
def test_picture_has_every_text_inside(report, long_names):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if long_names:
        step = max(report.layers, key=lambda layer: layer.flops * layer.bytes)
        ops = ("conv2d_grad_weight", "conv2d", "max_pool2d", "sgd_update")
        steps = (replace(step, name="grad.layer3.0.downsample.0", op=op, share=1 / len(ops)) for op in ops)
        report = replace(report, layers=tuple(steps))
    figure = draw_roofline(report)
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.size
    left, right = figure.axes
    texts = [*left.texts, *right.texts, *right.get_yticklabels(), left.xaxis.label, left.yaxis.label, right.xaxis.label,
             right.title, left.get_legend(), right.get_legend()]  # fmt: skip
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text
    for text in right.texts:
        assert text.get_window_extent().x1 <= right.get_window_extent().x1, text


def test_picture_as_png(report, tmp_path):
    pytest.importorskip("matplotlib")
    draw_roofline(report, tmp_path / "new" / "net.png")
    data = (tmp_path / "new" / "net.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert width >= 1000
    assert height >= 500


def test_picture_that_cannot_be_written_names_the_file(report, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file"):
        draw_roofline(report, tmp_path / "file" / "net.png")


def test_picture_needs_layers_and_peaks(report):
    for poor in (replace(report, layers=()), replace(report, peaks=())):
        with pytest.raises(ArgumentError, match="layers=True"):
            draw_roofline(poor)


def test_picture_without_matplotlib_says_how_to_get_it(report, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UnsupportedError, match=r"pycnn\[plot\]"):
        draw_roofline(report)


def test_command_draws_where_it_is_told(run, known_peaks, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    words = ("bench", "lenet5", "--rounds", "1")
    result = run(*words, "--roofline", tmp_path / "a.png")
    assert result.code == 0
    assert f"roofline: {tmp_path / 'a.png'}" in result.out
    assert "conv2d" not in result.out  # the table is that of --layers
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    names = [run(*words, "--train", "--json", "--roofline").json["roofline"] for _ in range(2)]
    assert names == ["lenet5-train-roofline.png", "lenet5-train-roofline-2.png"]
    assert all((tmp_path / name).is_file() for name in names)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("--roofline {}/net.txt", 2, "the ending must be one of"),
        ("--roofline {}", 2, "the ending must be one of"),
        ("--roofline {}/folder.png", 2, "is a folder"),
        ("--roofline {}/file/net.png", 2, "is no folder"),
        ("--roofline {}/net.png --no-peaks", 2, "--no-peaks"),
        ("--measure-peaks --no-peaks", 2, "not allowed with"),
        ("--dtype float16", 1, "float16 is computed on GPUs only"),
        ("--dtype float64", 2, "invalid choice: 'float64'"),
        ("--dtype nonsense", 2, "invalid choice: 'nonsense'"),
    ],
)
def test_mistakes_are_told_before_any_work(run, known_peaks, tmp_path, words, code, text):
    pytest.importorskip("matplotlib")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    result = run("bench", "lenet5", *words.replace("{}", str(tmp_path)).split())
    assert result.code == code
    assert text in result.err
    assert result.out == ""
    assert known_peaks == []


def test_command_without_matplotlib_refuses_before_measuring(run, known_peaks, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = run("bench", "lenet5", "--roofline", "net.png")
    assert result.code == 1
    assert "pycnn[plot]" in result.err
    assert known_peaks == []
