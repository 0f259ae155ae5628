"""What every op means, in NumPy float64: the oracle of tests/ops.

Written to be read, and slow. It shares no code with the package; images are (N, H, W, C), convolution weights
(OC, KH, KW, IC / groups), padding is one number, (vertical, horizontal) or (top, bottom, left, right).
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def f64(values):
    return np.asarray(values, np.float64)


def bfloat16(values):
    """The nearest bfloat16, ties to even, as float32: the upper half of a float's bits."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32)
    return np.where(np.isnan(values), np.float32(np.nan), rounded.view(np.float32)).astype(np.float32)


def pair(value):
    return (value, value) if np.isscalar(value) else tuple(value)


def sides(padding):
    """(top, bottom, left, right)."""
    if np.isscalar(padding):
        return (padding,) * 4
    if len(padding) == 2:
        return (padding[0], padding[0], padding[1], padding[1])
    return tuple(padding)


# ---- Windows


def window_count(size, before, after, kernel, dilation, stride, *, ceil_mode=False):
    room = size + before + after - ((kernel - 1) * dilation + 1)
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    # No window starts in the padding behind the image.
    if (count - 1) * stride >= size + before:
        count -= 1
    return count


def window_cells(x, fill, kernel, stride, padding, dilation, *, ceil_mode=False):
    """Yield (kh, kw, cells): for each place in the window what all output pixels see there, (N, OH, OW, C)."""
    (kh, kw), (sh, sw), (dh, dw) = pair(kernel), pair(stride), pair(dilation)
    top, bottom, left, right = sides(padding)
    _, height, width, _ = x.shape
    rows = window_count(height, top, bottom, kh, dh, sh, ceil_mode=ceil_mode)
    columns = window_count(width, left, right, kw, dw, sw, ceil_mode=ceil_mode)
    # With ceil_mode a window may hang over the padding's end.
    below = max(0, (rows - 1) * sh + (kh - 1) * dh + 1 - top - height)
    beside = max(0, (columns - 1) * sw + (kw - 1) * dw + 1 - left - width)
    padded = np.pad(x, ((0, 0), (top, below), (left, beside), (0, 0)), constant_values=fill)
    for i, j in itertools.product(range(kh), range(kw)):
        row, column = i * dh, j * dw
        last_row, last_column = row + (rows - 1) * sh + 1, column + (columns - 1) * sw + 1
        yield i, j, padded[:, row:last_row:sh, column:last_column:sw]


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    x, weight = f64(x), f64(weight)
    out_channels, kh, kw, in_channels = weight.shape
    per_group = out_channels // groups
    total = 0.0
    for i, j, cells in window_cells(x, 0.0, (kh, kw), stride, padding, dilation):
        parts = []
        for g in range(groups):
            seen = cells[..., g * in_channels : (g + 1) * in_channels]
            filters = weight[g * per_group : (g + 1) * per_group, i, j]
            parts.append(seen @ filters.T)
        total = total + np.concatenate(parts, axis=-1)
    return total if bias is None else total + f64(bias)


def conv2d_grad_input(grad, weight, input_shape, *, stride=1, padding=0, dilation=1, groups=1):
    """Scatter: what each output pixel saw gets its share back."""
    grad, weight = f64(grad), f64(weight)
    out_channels, kh, kw, in_channels = weight.shape
    n, height, width, channels = input_shape
    (sh, sw), (dh, dw) = pair(stride), pair(dilation)
    top, bottom, left, right = sides(padding)
    per_group = out_channels // groups
    padded = np.zeros((n, height + top + bottom, width + left + right, channels))
    for i, j, r, c in itertools.product(range(kh), range(kw), range(grad.shape[1]), range(grad.shape[2])):
        for g in range(groups):
            filters = weight[g * per_group : (g + 1) * per_group, i, j]
            share = grad[:, r, c, g * per_group : (g + 1) * per_group] @ filters
            padded[:, r * sh + i * dh, c * sw + j * dw, g * in_channels : (g + 1) * in_channels] += share
    return padded[:, top : top + height, left : left + width]


def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """Each pixel adds its share to a window of a canvas, from which the padding is cut."""
    x, weight = f64(x), f64(weight)
    (n, height, width, channels), (_, kh, kw, per_group) = x.shape, weight.shape
    (sh, sw), (dh, dw), (more_h, more_w) = pair(stride), pair(dilation), pair(output_padding)
    top, bottom, left, right = sides(padding)
    rows, columns = (height - 1) * sh + (kh - 1) * dh + 1, (width - 1) * sw + (kw - 1) * dw + 1
    canvas = np.zeros((n, rows + more_h, columns + more_w, groups * per_group))
    for i, j, c in itertools.product(range(kh), range(kw), range(channels)):
        first = c // (channels // groups) * per_group
        place = canvas[:, i * dh : i * dh + (height - 1) * sh + 1 : sh, j * dw : j * dw + (width - 1) * sw + 1 : sw]
        place[..., first : first + per_group] += x[..., c : c + 1] * weight[c, i, j]
    result = canvas[:, top : rows + more_h - bottom, left : columns + more_w - right]
    return result if bias is None else result + f64(bias)


def triple(value):
    return (value,) * 3 if np.isscalar(value) else tuple(value)


def conv3d(x, weight, bias=None, *, stride=1, padding=(0,) * 6, dilation=1, groups=1):
    """For each cell of the window the product of what all results see there; padding has six numbers."""
    x, weight = f64(x), f64(weight)
    steps, gaps, kernel = triple(stride), triple(dilation), weight.shape[1:4]
    x = np.pad(x, [(0, 0), *zip(padding[::2], padding[1::2], strict=True), (0, 0)])
    counts = [(x.shape[1 + i] - (kernel[i] - 1) * gaps[i] - 1) // steps[i] + 1 for i in range(3)]
    result = np.zeros((x.shape[0], *counts, weight.shape[0]))
    each, channels = weight.shape[0] // groups, weight.shape[4]
    for cell in itertools.product(*map(range, kernel)):
        at = [slice(c * g, c * g + (n - 1) * s + 1, s) for c, g, n, s in zip(cell, gaps, counts, steps, strict=True)]
        seen = x[:, at[0], at[1], at[2]]
        for g in range(groups):
            filters = weight[g * each : (g + 1) * each, cell[0], cell[1], cell[2]]
            result[..., g * each : (g + 1) * each] += seen[..., g * channels : (g + 1) * channels] @ filters.T
    return result if bias is None else result + f64(bias)


def conv_transpose3d(x, weight, bias=None, *, stride=1, padding=(0,) * 6, output_padding=0, dilation=1, groups=1):
    """Each cell adds its share to a window of a canvas, from which the padding is cut."""
    x, weight = f64(x), f64(weight)
    steps, gaps, more, kernel = triple(stride), triple(dilation), triple(output_padding), weight.shape[1:4]
    sizes = [(x.shape[1 + i] - 1) * steps[i] + (kernel[i] - 1) * gaps[i] + 1 + more[i] for i in range(3)]
    each, channels = weight.shape[4], weight.shape[0] // groups
    canvas = np.zeros((x.shape[0], *sizes, each * groups))
    for place in np.ndindex(*x.shape[1:4]):
        for cell in itertools.product(*map(range, kernel)):
            d, h, w = (p * s + c * g for p, s, c, g in zip(place, steps, cell, gaps, strict=True))
            for g in range(groups):
                filters = weight[g * channels : (g + 1) * channels, cell[0], cell[1], cell[2]]
                given = x[:, place[0], place[1], place[2], g * channels : (g + 1) * channels]
                canvas[:, d, h, w, g * each : (g + 1) * each] += given @ filters
    front, back, top, bottom, left, right = padding
    result = canvas[:, front : sizes[0] - back, top : sizes[1] - bottom, left : sizes[2] - right]
    return result if bias is None else result + f64(bias)


def conv2d_grad_weight(x, grad, kernel, *, stride=1, padding=0, dilation=1, groups=1):
    x, grad = f64(x), f64(grad)
    in_channels, per_group = x.shape[3] // groups, grad.shape[3] // groups
    result = np.zeros((grad.shape[3], *pair(kernel), in_channels))
    for i, j, cells in window_cells(x, 0.0, kernel, stride, padding, dilation):
        for g in range(groups):
            seen = cells[..., g * in_channels : (g + 1) * in_channels].reshape(-1, in_channels)
            rows = slice(g * per_group, (g + 1) * per_group)
            result[rows, i, j] = grad[..., rows].reshape(-1, per_group).T @ seen
    return result


def strassen_grad_weight(x, grad, *, magnitude=False):
    """Weight gradient of 1x1 windows, `x` the pixels that they meet, by Strassen's algorithm in Winograd's form.

    With `magnitude` every number is replaced by its absolute value and every difference by a sum.
    """
    minus = 1 if magnitude else -1
    pairs = []
    for array in (x, grad):
        flat = np.abs(f64(array)) if magnitude else f64(array)
        flat = flat.reshape(-1, flat.shape[-1])
        flat = np.concatenate([flat, np.zeros((len(flat) % 2, flat.shape[-1]))])
        pairs.append((flat[::2], flat[1::2]))
    (b1, b2), (a1, a2) = pairs
    ic, oc = b1.shape[-1] // 2, a1.shape[-1] // 2
    b11, b12, b21, b22 = b1[:, :ic], b1[:, ic:], b2[:, :ic], b2[:, ic:]
    a11, a12, a21, a22 = a1[:, :oc].T, a2[:, :oc].T, a1[:, oc:].T, a2[:, oc:].T
    s1, t1 = a21 + a22, b12 + minus * b11
    s2, t2 = s1 + minus * a11, b22 + minus * t1
    s3, t3 = a11 + minus * a21, b22 + minus * b12
    s4, t4 = a12 + minus * s2, t2 + minus * b21
    u2 = a11 @ b11 + s2 @ t2
    u3, p5 = u2 + s3 @ t3, s1 @ t1
    blocks = [[a11 @ b11 + a12 @ b21, u2 + p5 + s4 @ b22], [u3 + minus * (a22 @ t4), u3 + p5]]
    return np.block(blocks).reshape(2 * oc, 1, 1, 2 * ic)


# Winograd's minimal filtering by tile and window: input, weight and output matrices of Lavin and Gray, "Fast algorithms
# for convolutional neural networks", 2015, section 4, for 3x3 windows; those of 5x5 follow from the same points, 0, 1,
# -1, 2, -2 and infinity.
WINOGRAD = {
    (2, 3): (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    (4, 3): (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}
WINOGRAD[2, 5] = (
    WINOGRAD[4, 3][0],
    [
        [1 / 4, 0, 0, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3],
        [1 / 24, -1 / 12, 1 / 6, -1 / 3, 2 / 3],
        [0, 0, 0, 0, 1],
    ],
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 1]],
)


def channels_of(x, groups):
    """Each group's share of the last axis."""
    return np.split(x, groups, axis=-1)


def winograd(x, weight, tile, *, padding=0, magnitude=False, groups=1):
    """A 3x3 or 5x5 convolution by tiles; or with every number of every transform replaced by its absolute value."""
    if groups > 1:
        pairs = zip(channels_of(x, groups), np.split(weight, groups), strict=True)
        return np.concatenate([winograd(*p, tile, padding=padding, magnitude=magnitude) for p in pairs], axis=-1)
    window = weight.shape[1]
    matrices = [np.abs(f64(m)) if magnitude else f64(m) for m in WINOGRAD[tile, window]]
    x, weight = (np.abs(f64(a)) if magnitude else f64(a) for a in (x, weight))
    top, bottom, left, right = sides(padding)
    n, height, width, _ = x.shape
    rows, columns = height + top + bottom - window + 1, width + left + right - window + 1
    across, down = -(-columns // tile), -(-rows // tile)
    padded = np.zeros((n, down * tile + window - 1, across * tile + window - 1, x.shape[3]))
    padded[:, top : top + height, left : left + width] = x
    points = np.einsum("ai,oijc,bj->aboc", matrices[1], weight, matrices[1])
    output = np.zeros((n, down * tile, across * tile, len(weight)))
    for r, c in itertools.product(range(0, down * tile, tile), range(0, across * tile, tile)):
        pixels = padded[:, r : r + tile + window - 1, c : c + tile + window - 1]
        seen = np.einsum("ai,nijc,bj->nabc", matrices[0], pixels, matrices[0])
        products = np.einsum("nabc,aboc->nabo", seen, points)
        output[:, r : r + tile, c : c + tile] = np.einsum("ia,nabo,jb->nijo", matrices[2], products, matrices[2])
    return output[:, :rows, :columns]


def winograd_grad_weight(x, grad, tile, window, *, padding=0, magnitude=False, groups=1):
    """The transpose of `winograd` in the weight: its gradient."""
    if groups > 1:
        pairs = zip(channels_of(x, groups), channels_of(grad, groups), strict=True)
        options = {"padding": padding, "magnitude": magnitude}
        return np.concatenate([winograd_grad_weight(*p, tile, window, **options) for p in pairs])
    matrices = [np.abs(f64(m)) if magnitude else f64(m) for m in WINOGRAD[tile, window]]
    side = tile + window - 1
    x, grad = (np.abs(f64(a)) if magnitude else f64(a) for a in (x, grad))
    top, _, left, _ = sides(padding)
    n, rows, columns, out = grad.shape
    down, across = -(-rows // tile), -(-columns // tile)
    pixels = np.zeros((n, down * tile + window - 1, across * tile + window - 1, x.shape[3]))
    height, width = (min(a, b) for a, b in zip(x.shape[1:3], (pixels.shape[1] - top, pixels.shape[2] - left)))
    pixels[:, top : top + height, left : left + width] = x[:, :height, :width]
    gradients = np.zeros((n, down * tile, across * tile, out))
    gradients[:, :rows, :columns] = grad
    sums = np.zeros((side, side, out, x.shape[3]))
    for r, c in itertools.product(range(0, down * tile, tile), range(0, across * tile, tile)):
        seen = np.einsum("ai,nijc,bj->nabc", matrices[0], pixels[:, r : r + side, c : c + side], matrices[0])
        wanted = np.einsum("ia,nijo,jb->nabo", matrices[2], gradients[:, r : r + tile, c : c + tile], matrices[2])
        sums += np.einsum("nabo,nabc->aboc", wanted, seen)
    return np.einsum("ai,aboc,bj->oijc", matrices[1], sums, matrices[1])


def strassen_levels(pixels, read, written):
    """Levels of Strassen's algorithm in a 1x1 convolution between so many channels."""
    return 2 if read >= 256 and read % 64 == 0 and written % 128 == 0 and pixels % 4 == 0 and pixels >= 128 else 1


def strassen(x, weight, *, levels=1, magnitude=False):
    """A 1x1 convolution by pairs of pixels and halves of channels (Strassen's algorithm in Winograd's form).

    With two levels each of the seven products is computed that way itself. With `magnitude` every number is replaced by
    its absolute value and every difference by a sum.
    """
    if levels == 0:
        return f64(x) @ f64(weight).reshape(len(weight), -1).T
    x, weight = (np.abs(f64(a)) if magnitude else f64(a) for a in (x, weight))
    n, height, width, channels = x.shape
    pixels, half, out = height * width, channels // 2, len(weight) // 2
    minus = 1 if magnitude else -1

    def product(a, b):
        return strassen(a[:, np.newaxis], b.T.reshape(out, 1, 1, half), levels=levels - 1, magnitude=magnitude)[:, 0]

    flat = np.zeros((n, pixels + pixels % 2, channels))
    flat[:, :pixels] = x.reshape(n, pixels, channels)
    first, second = flat[:, ::2], flat[:, 1::2]
    a11, a12, a21, a22 = first[..., :half], first[..., half:], second[..., :half], second[..., half:]
    turned = weight.reshape(2 * out, channels).T
    b11, b12, b21, b22 = turned[:half, :out], turned[:half, out:], turned[half:, :out], turned[half:, out:]
    s1, t1 = a21 + a22, b12 + minus * b11
    s2, t2 = s1 + minus * a11, b22 + minus * t1
    s3, t3 = a11 + minus * a21, b22 + minus * b12
    s4, t4 = a12 + minus * s2, t2 + minus * b21
    u2 = product(a11, b11) + product(s2, t2)
    u3, p5 = u2 + product(s3, t3), product(s1, t1)
    result = np.empty((n, flat.shape[1], 2 * out))
    result[:, ::2] = np.concatenate([product(a11, b11) + product(a12, b21), u2 + p5 + product(s4, b22)], axis=-1)
    result[:, 1::2] = np.concatenate([u3 + minus * product(a22, t4), u3 + p5], axis=-1)
    return result[:, :pixels].reshape(n, height, width, 2 * out)


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    stride = kernel_size if stride is None else stride
    cells = [
        c for _, _, c in window_cells(f64(x), -np.inf, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    ]
    return np.maximum.reduce(cells)  # NaN wins


def max_pool2d_grad(x, grad, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """To the first largest cell in row-major order; the first NaN counts as the largest."""
    x, grad = f64(x), f64(grad)
    stride = kernel_size if stride is None else stride
    window = list(window_cells(x, -np.inf, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode))
    stacked = np.stack([cells for _, _, cells in window])
    winner = np.argmax(stacked, axis=0)  # the first of equals, the first NaN
    (sh, sw), (dh, dw) = pair(stride), pair(dilation)
    top, _, left, _ = sides(padding)
    result = np.zeros(x.shape)
    for n, r, c, channel in np.ndindex(*grad.shape):
        i, j, _ = window[winner[n, r, c, channel]]
        result[n, r * sh + i * dh - top, c * sw + j * dw - left, channel] += grad[n, r, c, channel]
    return result


def avg_pool2d_counts(shape, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """How many cells each mean is over, (1, OH, OW, 1)."""
    stride = kernel_size if stride is None else stride
    top, bottom, left, right = sides(padding)
    if count_include_pad:
        # Cells beyond image and padding, which only ceil_mode reaches, never count.
        (kh, kw), (sh, sw) = pair(kernel_size), pair(stride)
        height, width = shape[1] + top + bottom, shape[2] + left + right
        rows = window_count(shape[1], top, bottom, kh, 1, sh, ceil_mode=ceil_mode)
        columns = window_count(shape[2], left, right, kw, 1, sw, ceil_mode=ceil_mode)
        counts = np.zeros((1, rows, columns, 1))
        for r, c in np.ndindex(rows, columns):
            counts[0, r, c, 0] = (min(r * sh + kh, height) - r * sh) * (min(c * sw + kw, width) - c * sw)
        return counts
    inside = np.ones((1, shape[1], shape[2], 1))
    return sum(c for _, _, c in window_cells(inside, 0.0, kernel_size, stride, padding, 1, ceil_mode=ceil_mode))


def avg_pool2d(x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    geometry = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    step = kernel_size if stride is None else stride
    total = sum(c for _, _, c in window_cells(f64(x), 0.0, kernel_size, step, padding, 1, ceil_mode=ceil_mode))
    return total / avg_pool2d_counts(np.shape(x), count_include_pad=count_include_pad, **geometry)


def even_windows(size, count):
    """Bounds of `count` windows that cover `size` cells evenly."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_avg_pool2d(x, *, output_size):
    x = f64(x)
    rows, columns = (even_windows(n, k) for n, k in zip(x.shape[1:3], pair(output_size)))
    means = [[x[:, top:bottom, left:right].mean(axis=(1, 2)) for left, right in columns] for top, bottom in rows]
    return np.array(means).transpose(2, 0, 1, 3)


def adaptive_avg_pool2d_grad(grad, shape):
    """Of an image of `shape`."""
    result = np.zeros(shape)
    rows, columns = (even_windows(n, k) for n, k in zip(shape[1:3], grad.shape[1:3]))
    for (i, (top, bottom)), (j, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
        share = f64(grad)[:, i, j] / ((bottom - top) * (right - left))
        result[:, top:bottom, left:right] += share[:, None, None]
    return result


def lp_pool2d(x, *, norm_type, kernel_size, stride=None, padding=0, ceil_mode=False):
    stride = kernel_size if stride is None else stride
    cells = window_cells(np.abs(f64(x)), 0.0, kernel_size, stride, padding, 1, ceil_mode=ceil_mode)
    return sum(cell**norm_type for _, _, cell in cells) ** (1 / norm_type)


def keys(distance, a):
    """The cubic weights of Keys 1981."""
    x = np.abs(distance)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(given, size, place, *, mode, shrunk=1.0, cubic=-0.75, exclude_outside=False):
    """(size, given): the share of each pixel in each result, from places; rows have a sum of 1."""
    reach = math.ceil(3 / shrunk)
    result = np.zeros((size, given))
    for i, at in enumerate(place):
        shares = np.zeros(given)
        for source in range(math.floor(at) - reach, math.floor(at) + reach + 1):
            distance = (source - at) * shrunk
            share = keys(distance, cubic) if mode == "bicubic" else max(0.0, 1 - abs(distance))
            if 0 <= source < given or not exclude_outside:
                shares[min(max(source, 0), given - 1)] += share
        result[i] = shares / shares.sum()
    return result


def resize_axis(x, axis, size, *, scale=None, mode, grid, rounding="floor"):
    """One axis of an image after the other: the operation is separable."""
    given = x.shape[axis]
    scale = size / given if scale is None else scale
    i = np.arange(size, dtype=np.float64)
    place = {
        "half_pixel": (i + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (i + 0.5) / scale - 0.5 if size > 1 else i * 0,
        "asymmetric": i / scale,
        "align_corners": i * (given - 1) / (size - 1) if size > 1 else i * 0,
    }[grid]
    if mode == "bilinear":
        place = np.clip(place, 0, given - 1)
        before = np.minimum(place.astype(int), max(given - 2, 0))
        share = (place - before).reshape([-1 if k == axis else 1 for k in range(x.ndim)])
        after = np.minimum(before + 1, given - 1)
        return np.take(x, before, axis) * (1 - share) + np.take(x, after, axis) * share
    nearest = {
        "floor": np.floor(place),
        "ceil": np.ceil(place),
        "round_down": np.ceil(place - 0.5),
        "round_up": np.floor(place + 0.5),
    }[rounding]
    return np.take(x, np.clip(nearest, 0, given - 1).astype(int), axis)


def resize(x, *, size, mode, grid, rounding="floor"):
    for axis in (1, 2):
        x = resize_axis(f64(x), axis, size[axis - 1], mode=mode, grid=grid, rounding=rounding)
    return x


def normalized(x, axes, eps):
    x = f64(x)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def instance_norm(x, weight=1.0, bias=0.0, *, eps=1e-5):
    return normalized(x, tuple(range(1, x.ndim - 1)), eps) * weight + bias


def group_norm(x, groups, weight=1.0, bias=0.0, *, eps=1e-5):
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    axes = (*range(1, x.ndim - 1), x.ndim)
    return normalized(grouped, axes, eps).reshape(x.shape) * weight + bias


def layer_norm(x, weight=1.0, bias=0.0, *, axes=-1, eps=1e-5):
    return normalized(x, axes, eps) * weight + bias


def global_avg_pool2d(x):
    return f64(x).mean(axis=(1, 2))


def global_max_pool2d(x):
    return f64(x).max(axis=(1, 2))


# ---- Dense


def linear(x, weight, bias=None):
    result = f64(x) @ f64(weight).T
    return result if bias is None else result + f64(bias)


# ---- Normalisation


def batch_norm_inference(x, scale, shift, running_mean, running_var, *, eps=1e-5):
    return (f64(x) - f64(running_mean)) / np.sqrt(f64(running_var) + eps) * f64(scale) + f64(shift)


def batch_norm_train(x, scale, shift, running_mean, running_var, *, eps=1e-5, momentum=0.1):
    """Return (output, batch mean, 1 / std, new running mean, new running variance)."""
    x = f64(x)
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    mean = rows.mean(axis=0)
    variance = ((rows - mean) ** 2).sum(axis=0) / count
    inv_std = 1.0 / np.sqrt(variance + eps)
    output = (x - mean) * inv_std * f64(scale) + f64(shift)
    unbiased = variance * count / (count - 1)
    new_mean = (1 - momentum) * f64(running_mean) + momentum * mean
    new_var = (1 - momentum) * f64(running_var) + momentum * unbiased
    return output, mean, inv_std, new_mean, new_var


def fold_batch_norm(weight, scale, shift, running_mean, running_var, bias=None, *, eps=1e-5):
    factor = f64(scale) / np.sqrt(f64(running_var) + eps)
    folded = f64(weight) * factor.reshape((-1,) + (1,) * (np.ndim(weight) - 1))
    return folded, ((0.0 if bias is None else f64(bias)) - f64(running_mean)) * factor + f64(shift)


def local_response_norm(x, *, size=5, alpha=1e-4, beta=0.75, k=1.0):
    x = f64(x)
    channels = x.shape[-1]
    squares = np.zeros_like(x)
    for c in range(channels):
        first, last = max(0, c - size // 2), min(channels - 1, c + (size - 1) // 2)
        squares[..., c] = (x[..., first : last + 1] ** 2).sum(axis=-1)
    return x / (k + alpha / size * squares) ** beta


# ---- Element-wise


def relu(x):
    x = f64(x)
    return np.where(x < 0, 0.0, x)  # NaN stays


def relu6(x):
    x = f64(x)
    return np.where(np.isnan(x), x, np.clip(x, 0, 6))


def leaky_relu(x, *, negative_slope=0.01):
    x = f64(x)
    return np.where(x > 0, x, negative_slope * x)


def sigmoid(x):
    x = f64(x)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def tanh(x):
    return np.tanh(f64(x))


def scaled_tanh(x):
    return 1.7159 * np.tanh(2.0 / 3.0 * f64(x))


def erf(x):
    return np.vectorize(math.erf, otypes=[float])(f64(x))


def softplus(x, *, beta=1.0):
    x = beta * f64(x)
    return (np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))) / beta


def elu(x, *, alpha=1.0):
    return np.where(f64(x) > 0, x, alpha * np.expm1(np.minimum(f64(x), 0)))


def celu(x, *, alpha=1.0):
    return np.where(f64(x) > 0, x, alpha * np.expm1(np.minimum(f64(x), 0) / alpha))


def selu(x):
    return 1.0507009873554804934193349852946 * elu(x, alpha=1.6732632423543772848170429916717)


def silu(x):
    return f64(x) * sigmoid(x)


def mish(x):
    return f64(x) * np.tanh(softplus(x))


def gelu(x, *, approximate="none"):
    x = f64(x)
    if approximate == "tanh":
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x * np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2)) / 2


def hardsigmoid(x, *, alpha=1 / 6, beta=0.5):
    return np.clip(alpha * f64(x) + beta, 0, 1)


def hardswish(x):
    return f64(x) * hardsigmoid(x)


def softsign(x):
    return f64(x) / (1 + np.abs(f64(x)))


def threshold(x, *, threshold, value):
    return np.where((f64(x) > threshold) | np.isnan(x), x, value)


def clip(x, *, min=-math.inf, max=math.inf):
    return np.clip(f64(x), min, max)


def prelu(x, weight):
    return np.where(f64(x) > 0, x, f64(weight) * x)


def affine(x, *, scale=1.0, offset=0.0):
    return scale * f64(x) + offset


def normalize_image(x, *, scale=1.0, mean=0.0, std=1.0):
    return (f64(x) * scale - f64(mean)) / f64(std)


# ---- Random numbers: Philox4x32-10 (Salmon et al. 2011)


def philox(key, low, high):
    """Four 32-bit words for a 64-bit key and a 128-bit counter, in plain integers."""
    mask = 0xFFFFFFFF
    c = [low & mask, low >> 32 & mask, high & mask, high >> 32 & mask]
    k = [key & mask, key >> 32 & mask]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second & mask, (first >> 32) ^ c[3] ^ k[1], first & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def dropout_mask(count, *, p, seed, step, stream):
    """True where an element is kept."""
    words = [word for i in range(-(-count // 4)) for word in philox(seed ^ stream, i, step)]
    return np.array([(word >> 8) / 2**24 >= np.float32(p) for word in words[:count]], bool)


def dropout(x, *, p, seed, step, stream):
    x = f64(x)
    return np.where(dropout_mask(x.size, p=p, seed=seed, step=step, stream=stream).reshape(x.shape), x / (1 - p), 0.0)


# ---- Softmax and losses


def softmax(x):
    x = f64(x)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x):
    x = f64(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def soft_targets(target, classes, label_smoothing=0.0):
    target = np.asarray(target)
    if target.dtype.kind in "iu":
        target = np.eye(classes)[target]
    return (1 - label_smoothing) * f64(target) + label_smoothing / classes


def cross_entropy(logits, target, *, label_smoothing=0.0):
    probabilities = soft_targets(target, np.shape(logits)[1], label_smoothing)
    return -(probabilities * log_softmax(logits)).sum(axis=1).mean()


def mse_loss(x, target):
    return ((f64(x) - f64(target)) ** 2).mean()


def top_k_correct(scores, labels, *, k=1):
    """Ties: the lower index first; NaN is never among the largest."""
    count = 0
    for row, label in zip(f64(scores), labels, strict=True):
        candidates = [i for i in range(len(row)) if not math.isnan(row[i])]
        best = sorted(candidates, key=lambda i: (-row[i], i))[:k]
        count += int(label in best)
    return float(count)


# ---- Moving data


def take(x, *, indices):
    x = np.asarray(x)
    return np.stack([x[i] if i >= 0 else np.zeros_like(x[0]) for i in indices])


def take_windows(images, places, *, size, fill, box_fill):
    result = np.full((len(places), *size, images.shape[3]), fill, images.dtype)
    for n, (image, top, left, mirrored, y0, y1, x0, x1) in enumerate(places.tolist()):
        for y in range(size[0]):
            for x in range(size[1]):
                row, column = top + y, left + (size[1] - 1 - x if mirrored else x)
                if y0 <= y < y1 and x0 <= x < x1:
                    result[n, y, x] = box_fill
                elif 0 <= image < len(images) and 0 <= row < images.shape[1] and 0 <= column < images.shape[2]:
                    result[n, y, x] = images[image, row, column]
    return result


def take_grad(grad, *, indices, rows):
    result = np.zeros((rows, *np.shape(grad)[1:]))
    for i, index in enumerate(indices):
        if index >= 0:
            result[index] += f64(grad)[i]
    return result


def flatten(x):
    x = np.asarray(x)
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    return x.reshape(len(x), math.prod(x.shape[1:]))


# ---- Updates


def clip_factor(gradients, *, max_norm):
    norm = math.sqrt(sum(float((f64(g) ** 2).sum()) for g in gradients))
    return min(1.0, max_norm / norm) if norm else 1.0, norm


def sgd(parameter, gradient, velocity, *, rate, momentum=0.0, nesterov=False, weight_decay=0.0, factor=1.0):
    """Return (parameter, velocity)."""
    g = factor * f64(gradient) + weight_decay * f64(parameter)
    velocity = momentum * f64(velocity) + g
    return parameter - rate * (g + momentum * velocity if nesterov else velocity), velocity


def adam(
    parameter, gradient, mean, variance, *, rate, step, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
    decoupled=False, factor=1.0,
):  # fmt: skip
    """Return (parameter, mean, variance); step counts from 0."""
    g = factor * f64(gradient)
    if decoupled:
        parameter = parameter * (1 - rate * weight_decay)
    else:
        g = g + weight_decay * parameter
    mean = beta1 * mean + (1 - beta1) * g
    variance = beta2 * variance + (1 - beta2) * g**2
    corrected_mean = mean / (1 - beta1 ** (step + 1))
    corrected_variance = variance / (1 - beta2 ** (step + 1))
    return parameter - rate * corrected_mean / (np.sqrt(corrected_variance) + eps), mean, variance


def muon(parameter, gradient, velocity, *, rate, momentum, nesterov, weight_decay=0.0, iterations=5, factor=1.0):
    """Return (parameter, velocity); the polynomial is applied to the singular values themselves."""
    g = factor * f64(gradient)
    velocity = momentum * f64(velocity) + g
    u = (g + momentum * velocity if nesterov else velocity).reshape(len(parameter), -1)
    left, values, right = np.linalg.svd(u, full_matrices=False)
    values = values / max(np.sqrt((values**2).sum()), 1e-7)
    for _ in range(iterations):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    step = rate * np.sqrt(max(1.0, u.shape[0] / u.shape[1])) * (left * values) @ right
    return (1 - rate * weight_decay) * f64(parameter) - step.reshape(parameter.shape), velocity


def ema(average, value, *, decay, step):
    decay = min(decay, (1 + step) / (10 + step))
    return decay * f64(average) + (1 - decay) * f64(value)
