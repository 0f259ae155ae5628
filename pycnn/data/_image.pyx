# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""Hot loops over images: gather, normalise, crop, flip, warp, resize, colours, sums, random numbers.

Contract shared by all functions:

* Images are channels-last, C-contiguous, uint8 or float32; `out` never overlaps an input.
* Shapes are checked on entry (ValueError), then the GIL is released for the whole batch. There
  are no threads inside: the loader's Python threads run several calls side by side.
* Every sample is computed by itself, in one fixed order, so the bits do not depend on how samples
  are grouped into batches or shared among threads.
* Random numbers are Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
  SC 2011): a pure function of (seed, epoch, sample index, stream), with no state anywhere.
"""

from libc.math cimport ceil, cos, fabs, floor, log, sin, sqrt, tan
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t pycnn_mulhi(uint64_t a, uint64_t b) {
    #if defined(__SIZEOF_INT128__)
        return (uint64_t)(((unsigned __int128)a * b) >> 64);
    #else
        uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
        uint64_t mid = ah * bl + ((al * bl) >> 32);
        uint64_t low = al * bh + (uint32_t)mid;
        return ah * bh + (mid >> 32) + (low >> 32);
    #endif
    }

    /* Sum over k of taps[k] times the three floats at line + 3k, in lanes: the same products and the
       same order as one channel after the other. Reads one float beyond; out gets four. */
    static inline void pycnn_taps3(const float* line, const float* taps, long count, float* out) {
    #if defined(__GNUC__)
        typedef float lanes __attribute__((vector_size(16)));
        lanes sum = {0, 0, 0, 0}, value;
        for (long k = 0; k < count; ++k) {
            __builtin_memcpy(&value, line + 3 * k, 16);
            sum += value * taps[k];
        }
        __builtin_memcpy(out, &sum, 16);
    #else
        for (int c = 0; c < 3; ++c) {
            out[c] = 0;
            for (long k = 0; k < count; ++k) out[c] += taps[k] * line[3 * k + c];
        }
    #endif
    }
    """
    uint64_t pycnn_mulhi(uint64_t a, uint64_t b) noexcept nogil
    void pycnn_taps3(const float* line, const float* taps, long count, float* out) noexcept nogil

ctypedef fused pixel_t:
    uint8_t
    float

# What a Philox counter is used for; one word of the counter keeps the uses apart.
cdef enum:
    PURPOSE_PARAMETERS = 0
    PURPOSE_FIELD = 1
    PURPOSE_NORMAL = 2

cdef double UNIT = 1.0 / 9007199254740992.0
cdef double TWO_PI = 6.283185307179586


cdef int _require(bint condition, str what) except -1:
    if not condition:
        raise ValueError(f"pycnn.data._image: {what}")
    return 0


cdef inline pixel_t _store(float value, pixel_t like) noexcept nogil:
    """Round half up and clamp for uint8; pass float32 through (NaN included)."""
    if pixel_t is uint8_t:
        if value <= 0.0:
            return 0
        if value >= 255.0:
            return 255
        return <uint8_t>(value + 0.5)
    else:
        return value


# ---------------------------------------------------------------------------------------------
# Random numbers


cdef inline void _philox(
    uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3, uint64_t k0, uint64_t k1, uint64_t* out
) noexcept nogil:
    cdef int i
    cdef uint64_t hi0, hi1, lo0, lo1
    for i in range(10):
        hi0 = pycnn_mulhi(0xD2E7470EE14C6C93ULL, c0)
        lo0 = 0xD2E7470EE14C6C93ULL * c0
        hi1 = pycnn_mulhi(0xCA5A826395121157ULL, c2)
        lo1 = 0xCA5A826395121157ULL * c2
        c0 = hi1 ^ c1 ^ k0
        c1 = lo1
        c2 = hi0 ^ c3 ^ k1
        c3 = lo0
        k0 += 0x9E3779B97F4A7C15ULL
        k1 += 0xBB67AE8584CAA73BULL
    out[0] = c0
    out[1] = c1
    out[2] = c2
    out[3] = c3


def random_words(uint64_t seed, uint64_t epoch, uint64_t stream, int64_t sample,
                 uint64_t[::1] out):
    """Fill `out` with 64-bit words of one sample: counter (block, sample, stream, 0)."""
    cdef Py_ssize_t i = 0, j, n = out.shape[0]
    cdef uint64_t block = 0
    cdef uint64_t words[4]
    with nogil:
        while i < n:
            _philox(block, <uint64_t>sample, stream, PURPOSE_PARAMETERS, seed, epoch, words)
            for j in range(min(4, n - i)):
                out[i + j] = words[j]
            i += 4
            block += 1


def uniform(uint64_t seed, uint64_t epoch, uint64_t stream, const int64_t[::1] index,
            double[:, ::1] out):
    """Row n gets numbers in [0, 1) of sample index[n]; 53 bits each."""
    _require(index.shape[0] == out.shape[0], "index and out differ in length")
    cdef Py_ssize_t n, i, j, count = out.shape[1]
    cdef uint64_t words[4]
    with nogil:
        for n in range(out.shape[0]):
            for i in range(0, count, 4):
                _philox(i >> 2, <uint64_t>index[n], stream, PURPOSE_PARAMETERS, seed, epoch, words)
                for j in range(min(4, count - i)):
                    out[n, i + j] = <double>(words[j] >> 11) * (1.0 / 9007199254740992.0)


def normal(uint64_t seed, uint64_t epoch, uint64_t stream, const int64_t[::1] index,
           double[:, ::1] out):
    """Row n gets standard normal numbers of sample index[n] (Box and Muller 1958).

    Two words make two numbers. Scalar libm calls, so that the bits do not depend on the position.
    """
    _require(index.shape[0] == out.shape[0], "index and out differ in length")
    cdef Py_ssize_t n, i, j, count = out.shape[1]
    cdef uint64_t words[4]
    cdef double radius, angle
    cdef double values[4]
    with nogil:
        for n in range(out.shape[0]):
            for i in range(0, count, 4):
                _philox(i >> 2, <uint64_t>index[n], stream, PURPOSE_NORMAL, seed, epoch, words)
                for j in range(0, 4, 2):
                    # 1 - u is in (0, 1], where the logarithm is finite.
                    radius = sqrt(-2.0 * log(1.0 - <double>(words[j] >> 11) * UNIT))
                    angle = TWO_PI * (<double>(words[j + 1] >> 11) * UNIT)
                    values[j] = radius * cos(angle)
                    values[j + 1] = radius * sin(angle)
                for j in range(min(4, count - i)):
                    out[n, i + j] = values[j]


# ---------------------------------------------------------------------------------------------
# Gather and normalise


def gather(const uint8_t[:, ::1] rows, const int64_t[::1] index, uint8_t[:, ::1] out):
    """out[n] = rows[index[n]], as bytes, so any element type can be viewed through it."""
    _require(index.shape[0] == out.shape[0], "index and out differ in length")
    _require(rows.shape[1] == out.shape[1], "rows and out differ in row size")
    cdef Py_ssize_t n, bad = -1, size = rows.shape[1]
    if size == 0:
        return
    with nogil:
        for n in range(index.shape[0]):
            if index[n] < 0 or index[n] >= rows.shape[0]:
                bad = n
                break
            memcpy(&out[n, 0], &rows[index[n], 0], size)
    if bad >= 0:
        raise IndexError(f"index {index[bad]} at position {bad}, there are {rows.shape[0]} rows")


def gather_normalize(const pixel_t[:, ::1] rows, const int64_t[::1] index,
                     const float[::1] scale, const float[::1] shift, float[:, ::1] out):
    """out[n, i] = rows[index[n], i] * scale[i % P] + shift[i % P], P = len(scale).

    The caller repeats the per-channel constants into a period P of some dozens of elements:
    then the inner loop has unit stride everywhere and fills the lanes for any channel count.
    """
    _require(index.shape[0] == out.shape[0], "index and out differ in length")
    _require(rows.shape[1] == out.shape[1], "rows and out differ in row size")
    _require(scale.shape[0] > 0 and scale.shape[0] == shift.shape[0], "scale and shift differ")
    cdef Py_ssize_t n, i, j, bad = -1, size = rows.shape[1], period = scale.shape[0], count
    cdef const pixel_t* source
    cdef float* target
    cdef const float* a = &scale[0]
    cdef const float* b = &shift[0]
    if size == 0:
        return
    with nogil:
        for n in range(index.shape[0]):
            if index[n] < 0 or index[n] >= rows.shape[0]:
                bad = n
                break
            i = 0
            while i < size:
                source = &rows[index[n], i]
                target = &out[n, i]
                count = min(period, size - i)
                for j in range(count):
                    target[j] = source[j] * a[j] + b[j]
                i += period
    if bad >= 0:
        raise IndexError(f"index {index[bad]} at position {bad}, there are {rows.shape[0]} rows")


# ---------------------------------------------------------------------------------------------
# Crop and flip


def crop(const pixel_t[:, :, :, ::1] images, const int64_t[::1] top, const int64_t[::1] left,
         float fill, pixel_t[:, :, :, ::1] out):
    """out[n, y, x] = images[n, top[n] + y, left[n] + x], or `fill` outside of the image."""
    _require(images.shape[0] == out.shape[0] and images.shape[3] == out.shape[3],
             "images and out differ in batch or channels")
    _require(top.shape[0] == out.shape[0] and left.shape[0] == out.shape[0],
             "offsets and out differ in length")
    cdef Py_ssize_t n, y, x, i, sy, first, last
    cdef Py_ssize_t h = images.shape[1], w = images.shape[2], c = images.shape[3]
    cdef Py_ssize_t oh = out.shape[1], ow = out.shape[2]
    cdef pixel_t value = _store(fill, <pixel_t>0)
    if out.shape[0] * oh * ow * c == 0 or h * w == 0:
        return
    with nogil:
        for n in range(out.shape[0]):
            # Columns first..last of the output lie inside of the image.
            first = min(max(-left[n], 0), ow)
            last = max(min(w - left[n], ow), first)
            for y in range(oh):
                sy = top[n] + y
                if sy < 0 or sy >= h or first == last:
                    for i in range(ow * c):
                        (&out[n, y, 0, 0])[i] = value
                    continue
                for i in range(first * c):
                    (&out[n, y, 0, 0])[i] = value
                memcpy(&out[n, y, first, 0], &images[n, sy, left[n] + first, 0],
                       (last - first) * c * sizeof(pixel_t))
                for i in range(last * c, ow * c):
                    (&out[n, y, 0, 0])[i] = value


def flip(const pixel_t[:, :, :, ::1] images, const uint8_t[::1] chosen,
         pixel_t[:, :, :, ::1] out):
    """Mirror the columns of the samples whose flag is not zero; copy the others."""
    _require(images.shape[0] == out.shape[0] and images.shape[1] == out.shape[1]
             and images.shape[2] == out.shape[2] and images.shape[3] == out.shape[3],
             "images and out differ in shape")
    _require(chosen.shape[0] == out.shape[0], "flags and out differ in length")
    cdef Py_ssize_t n, y, x, k, h = out.shape[1], w = out.shape[2], c = out.shape[3]
    cdef const pixel_t* source
    cdef pixel_t* target
    if out.shape[0] * h * w * c == 0:
        return
    with nogil:
        for n in range(out.shape[0]):
            if not chosen[n]:
                memcpy(&out[n, 0, 0, 0], &images[n, 0, 0, 0], h * w * c * sizeof(pixel_t))
                continue
            for y in range(h):
                source = &images[n, y, 0, 0]
                target = &out[n, y, 0, 0]
                if c == 3:
                    # Known to the compiler, the three moves need no loop.
                    for x in range(w):
                        target[3 * x] = source[3 * (w - 1 - x)]
                        target[3 * x + 1] = source[3 * (w - 1 - x) + 1]
                        target[3 * x + 2] = source[3 * (w - 1 - x) + 2]
                    continue
                for x in range(w):
                    for k in range(c):
                        target[x * c + k] = source[(w - 1 - x) * c + k]


# ---------------------------------------------------------------------------------------------
# Geometric distortion


def affine_matrices(const double[:, ::1] parameters, Py_ssize_t height, Py_ssize_t width,
                    float[:, ::1] out):
    """Matrices that lead from an output pixel back to the input, for `warp`.

    Forward, about the image centre c: p' = c + t + R(angle) S(shear) scale (p - c), with
    R = [[cos, -sin], [sin, cos]] and S = [[1, tan(shear)], [0, 1]] on (x, y), y downwards.
    Rows of `parameters`: angle and shear in radians, scale, shift along x and y in pixels.
    Scalar libm calls, one sample at a time: vectorised ones may round differently by position.
    """
    _require(parameters.shape[1] == 5 and out.shape[1] == 6, "parameters (N, 5), out (N, 6)")
    _require(parameters.shape[0] == out.shape[0], "parameters and out differ in length")
    cdef Py_ssize_t n
    cdef double c, s, t, inverse, a, b, d, e, cx, cy, tx, ty
    cx = 0.5 * (width - 1)
    cy = 0.5 * (height - 1)
    with nogil:
        for n in range(out.shape[0]):
            c = cos(parameters[n, 0])
            s = sin(parameters[n, 0])
            t = tan(parameters[n, 1])
            inverse = 1.0 / parameters[n, 2]
            a = inverse * (c + t * s)
            b = inverse * (s - t * c)
            d = -inverse * s
            e = inverse * c
            tx = cx + parameters[n, 3]
            ty = cy + parameters[n, 4]
            out[n, 0] = <float>a
            out[n, 1] = <float>b
            out[n, 2] = <float>(cx - a * tx - b * ty)
            out[n, 3] = <float>d
            out[n, 4] = <float>e
            out[n, 5] = <float>(cy - d * tx - e * ty)


cdef void _noise(uint64_t seed, uint64_t epoch, uint64_t stream, uint64_t sample,
                 float* out, Py_ssize_t count) noexcept nogil:
    """Uniform numbers in [-1, 1), 24 bits each, eight per Philox block."""
    cdef Py_ssize_t i = 0, j
    cdef uint64_t block = 0
    cdef uint64_t words[4]
    cdef float values[8]
    while i < count:
        _philox(block, sample, stream, PURPOSE_FIELD, seed, epoch, words)
        for j in range(4):
            values[2 * j] = (<int>((words[j] >> 8) & 0xFFFFFF) - 8388608) * (1.0 / 8388608.0)
            values[2 * j + 1] = (<int>(words[j] >> 40) - 8388608) * (1.0 / 8388608.0)
        for j in range(min(8, count - i)):
            out[i + j] = values[j]
        i += 8
        block += 1


cdef void _smooth(float* field, const float* taps, Py_ssize_t radius, float* scratch,
                  Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """Separable symmetric filter in place; the field counts as 0 outside.

    taps[0] is the centre. `scratch` holds (height + 2*radius) * (width + 2*radius) floats. The
    tap loop is outside of the pixel loop, so that the inner loop has unit stride.
    """
    cdef Py_ssize_t y, x, k, wide = width + 2 * radius
    cdef const float* centre
    cdef const float* before
    cdef const float* after
    cdef float* target
    cdef float tap
    memset(scratch, 0, height * wide * sizeof(float))
    for y in range(height):
        memcpy(scratch + y * wide + radius, field + y * width, width * sizeof(float))
    for y in range(height):
        target = field + y * width
        centre = scratch + y * wide + radius
        tap = taps[0]
        for x in range(width):
            target[x] = tap * centre[x]
        for k in range(1, radius + 1):
            tap = taps[k]
            before = centre - k
            after = centre + k
            for x in range(width):
                target[x] += tap * (before[x] + after[x])
    memset(scratch, 0, (height + 2 * radius) * width * sizeof(float))
    memcpy(scratch + radius * width, field, height * width * sizeof(float))
    for y in range(height):
        target = field + y * width
        centre = scratch + (y + radius) * width
        tap = taps[0]
        for x in range(width):
            target[x] = tap * centre[x]
        for k in range(1, radius + 1):
            tap = taps[k]
            before = centre - k * width
            after = centre + k * width
            for x in range(width):
                target[x] += tap * (before[x] + after[x])


def displacement(uint64_t seed, uint64_t epoch, uint64_t stream, const int64_t[::1] index,
                 float alpha, const float[::1] taps, float[:, :, :, ::1] out):
    """Random smooth displacement fields out[n] = (dx plane, dy plane), in pixels.

    Simard, Steinkraus, Platt (ICDAR 2003), section 2: uniform noise in [-1, 1], smoothed by a
    Gaussian (`taps`, centre first), times alpha.
    """
    _require(out.shape[1] == 2 and index.shape[0] == out.shape[0], "out must be (N, 2, H, W)")
    _require(taps.shape[0] >= 1, "no taps")
    cdef Py_ssize_t n, i, radius = taps.shape[0] - 1
    cdef Py_ssize_t h = out.shape[2], w = out.shape[3], plane = h * w
    cdef float[::1] scratch = np.empty((h + 2 * radius) * (w + 2 * radius) + 1, np.float32)
    cdef float* field
    if out.shape[0] * plane == 0:
        return
    with nogil:
        for n in range(out.shape[0]):
            field = &out[n, 0, 0, 0]
            _noise(seed, epoch, stream, <uint64_t>index[n], field, 2 * plane)
            _smooth(field, &taps[0], radius, &scratch[0], h, w)
            _smooth(field + plane, &taps[0], radius, &scratch[0], h, w)
            for i in range(2 * plane):
                field[i] *= alpha


cdef inline float _pixel(const pixel_t* image, Py_ssize_t y, Py_ssize_t x, Py_ssize_t k,
                         Py_ssize_t h, Py_ssize_t w, Py_ssize_t c, float fill) noexcept nogil:
    if y < 0 or y >= h or x < 0 or x >= w:
        return fill
    return <float>image[(y * w + x) * c + k]


def warp(const pixel_t[:, :, :, ::1] images, const float[:, ::1] matrices,
         const float[:, :, :, ::1] field, float fill, pixel_t[:, :, :, ::1] out):
    """out[n, p] = bilinear images[n] at M[n] (p + field[n, p]); `fill` outside of the image.

    p = (x, y). `matrices` (N, 6) and `field` (N, 2, H, W) may have no rows, which means the
    identity and no displacement. Both together are one resampling: an affine transform followed
    by an elastic distortion, without blurring twice.
    """
    _require(images.shape[0] == out.shape[0] and images.shape[1] == out.shape[1]
             and images.shape[2] == out.shape[2] and images.shape[3] == out.shape[3],
             "images and out differ in shape")
    cdef bint has_matrix = matrices.shape[0] > 0, has_field = field.shape[0] > 0
    _require(not has_matrix or (matrices.shape[0] == out.shape[0] and matrices.shape[1] == 6),
             "matrices must be (N, 6)")
    _require(not has_field or (field.shape[0] == out.shape[0] and field.shape[1] == 2
                               and field.shape[2] == out.shape[1]
                               and field.shape[3] == out.shape[2]), "field must be (N, 2, H, W)")
    cdef Py_ssize_t n, y, x, k, x0, y0
    cdef Py_ssize_t h = out.shape[1], w = out.shape[2], c = out.shape[3]
    cdef float u, v, sx, sy, fx, fy, upper, lower
    cdef float m[6]
    cdef const pixel_t* image
    cdef const pixel_t* corner
    cdef pixel_t* target
    cdef const float* dx
    cdef const float* dy
    cdef pixel_t blank = _store(fill, <pixel_t>0)
    m[0] = 1
    m[1] = 0
    m[2] = 0
    m[3] = 0
    m[4] = 1
    m[5] = 0
    dx = NULL
    dy = NULL
    if out.shape[0] * h * w * c == 0:
        return
    with nogil:
        for n in range(out.shape[0]):
            image = &images[n, 0, 0, 0]
            target = &out[n, 0, 0, 0]
            if has_matrix:
                for k in range(6):
                    m[k] = matrices[n, k]
            if has_field:
                dx = &field[n, 0, 0, 0]
                dy = &field[n, 1, 0, 0]
            for y in range(h):
                for x in range(w):
                    u = <float>x
                    v = <float>y
                    if has_field:
                        u += dx[y * w + x]
                        v += dy[y * w + x]
                    sx = m[0] * u + m[1] * v + m[2]
                    sy = m[3] * u + m[4] * v + m[5]
                    # Written so that NaN fails it too, before anything is cast to an integer.
                    if not (sx > -1 and sx < w and sy > -1 and sy < h):
                        for k in range(c):
                            target[k] = blank
                        target += c
                        continue
                    x0 = <Py_ssize_t>(sx + 1) - 1
                    y0 = <Py_ssize_t>(sy + 1) - 1
                    fx = sx - x0
                    fy = sy - y0
                    if x0 >= 0 and y0 >= 0 and x0 + 1 < w and y0 + 1 < h:
                        corner = image + (y0 * w + x0) * c
                        for k in range(c):
                            upper = corner[k] * (1 - fx) + corner[c + k] * fx
                            lower = corner[w * c + k] * (1 - fx) + corner[w * c + c + k] * fx
                            target[k] = _store(upper * (1 - fy) + lower * fy, <pixel_t>0)
                    else:
                        for k in range(c):
                            upper = (_pixel(image, y0, x0, k, h, w, c, fill) * (1 - fx)
                                     + _pixel(image, y0, x0 + 1, k, h, w, c, fill) * fx)
                            lower = (_pixel(image, y0 + 1, x0, k, h, w, c, fill) * (1 - fx)
                                     + _pixel(image, y0 + 1, x0 + 1, k, h, w, c, fill) * fx)
                            target[k] = _store(upper * (1 - fy) + lower * fy, <pixel_t>0)
                    target += c


# ---------------------------------------------------------------------------------------------
# Resize


def resize(const pixel_t[:, :, :, ::1] images, const int64_t[::1] row_start,
           const float[:, ::1] row_taps, const int64_t[::1] column_start,
           const float[:, ::1] column_taps, pixel_t[:, :, :, ::1] out):
    """Separable resampling: columns first into float32, then rows.

    Output column x is the sum over k of column_taps[x, k] * input column column_start[x] + k, rows
    likewise. The filter (bilinear, bicubic, wider when shrinking) is in the taps.
    """
    _require(images.shape[0] == out.shape[0] and images.shape[3] == out.shape[3],
             "images and out differ in batch or channels")
    cdef Py_ssize_t n, y, x, k, i, h = images.shape[1], w = images.shape[2], c = out.shape[3]
    cdef Py_ssize_t oh = out.shape[1], ow = out.shape[2], row = ow * c
    _require(row_start.shape[0] == oh and row_taps.shape[0] == oh, "one row filter per row")
    _require(column_start.shape[0] == ow and column_taps.shape[0] == ow, "one filter per column")
    for y in range(oh):
        _require(row_start[y] >= 0 and row_start[y] + row_taps.shape[1] <= h, "row taps outside")
    for x in range(ow):
        _require(column_start[x] >= 0 and column_start[x] + column_taps.shape[1] <= w,
                 "column taps outside")
    if out.shape[0] * oh * row == 0:
        return
    cdef float[::1] wide = np.empty(h * row, np.float32)
    cdef float[::1] line = np.empty(row, np.float32)
    cdef const pixel_t* source
    cdef float* target
    cdef float tap
    with nogil:
        for n in range(out.shape[0]):
            for y in range(h):
                target = &wide[y * row]
                memset(target, 0, row * sizeof(float))
                for x in range(ow):
                    for k in range(column_taps.shape[1]):
                        source = &images[n, y, column_start[x] + k, 0]
                        tap = column_taps[x, k]
                        for i in range(c):
                            target[x * c + i] += tap * source[i]
            for y in range(oh):
                memset(&line[0], 0, row * sizeof(float))
                for k in range(row_taps.shape[1]):
                    target = &wide[(row_start[y] + k) * row]
                    tap = row_taps[y, k]
                    for i in range(row):
                        line[i] += tap * target[i]
                for i in range(row):
                    (&out[n, y, 0, 0])[i] = _store(line[i], <pixel_t>0)


cdef Py_ssize_t _triangle(double origin, double extent, Py_ssize_t source, Py_ssize_t target,
                          bint antialias, int64_t* start, float* taps,
                          Py_ssize_t count) noexcept nogil:
    """Bilinear filter of each output pixel; `resize_taps` where origin is 0 and extent is source."""
    cdef Py_ssize_t i, k, first
    cdef double factor = extent / <double>target
    cdef double stretch = factor if antialias and factor > 1.0 else 1.0
    cdef double centre, weight, total
    for i in range(target):
        centre = origin + (i + 0.5) * factor
        first = <Py_ssize_t>floor(centre - stretch + 0.5)
        first = min(max(first, 0), source - count)
        start[i] = first
        total = 0.0
        for k in range(count):
            total += max(0.0, 1.0 - fabs((first + k + 0.5 - centre) / stretch))
        for k in range(count):
            weight = max(0.0, 1.0 - fabs((first + k + 0.5 - centre) / stretch))
            taps[i * count + k] = <float>(weight / total)
    return count


cdef inline Py_ssize_t _tap_count(double extent, Py_ssize_t source, Py_ssize_t target,
                                  bint antialias) noexcept nogil:
    cdef double factor = extent / <double>target
    cdef double stretch = factor if antialias and factor > 1.0 else 1.0
    return min(source, <Py_ssize_t>ceil(2.0 * stretch) + 1)


def crop_resize(const pixel_t[:, :, ::1] image, double top, double left, double height,
                double width, bint antialias, pixel_t[:, :, ::1] out):
    """Window (top, left, height, width) of one image, resampled bilinearly to the size of `out`.

    Pixels that lie wholly outside of the window do not count. With `antialias` the filter grows with the factor
    when shrinking, so that every pixel of the window counts; without it four pixels do.
    Rows first: that loop runs along memory over all columns and channels.
    """
    _require(image.shape[2] == out.shape[2], "image and out differ in channels")
    _require(top >= 0.0 and left >= 0.0 and height > 0.0 and width > 0.0
             and top + height <= image.shape[0] and left + width <= image.shape[1],
             "the window leaves the image")
    # The whole pixels that the window touches.
    cdef Py_ssize_t y0 = min(<Py_ssize_t>top, image.shape[0] - 1)
    cdef Py_ssize_t x0 = min(<Py_ssize_t>left, image.shape[1] - 1)
    cdef Py_ssize_t rows = max(1, <Py_ssize_t>ceil(top + height) - y0)
    cdef Py_ssize_t columns = max(1, <Py_ssize_t>ceil(left + width) - x0)
    cdef Py_ssize_t oh = out.shape[0], ow = out.shape[1], c = out.shape[2]
    cdef Py_ssize_t y, x, k, i, span = columns * c, kh, kw
    cdef const pixel_t* source
    cdef pixel_t* target
    cdef float* line
    cdef float* taps
    cdef int64_t* start
    cdef float tap, a
    cdef float sums[4]
    if oh * ow * c == 0:
        return
    kh = _tap_count(height, rows, oh, antialias)
    kw = _tap_count(width, columns, ow, antialias)
    start = <int64_t*>malloc((oh + ow) * sizeof(int64_t) + (span + 1 + oh * kh + ow * kw) * sizeof(float))
    if start == NULL:
        raise MemoryError()
    line = <float*>(start + oh + ow)
    # One more for the lanes of the last pixel.
    line[span] = 0.0
    taps = line + span + 1
    with nogil:
        _triangle(top - y0, height, rows, oh, antialias, start, taps, kh)
        _triangle(left - x0, width, columns, ow, antialias, start + oh, taps + oh * kh, kw)
        for y in range(oh):
            memset(line, 0, span * sizeof(float))
            for k in range(kh):
                tap = taps[y * kh + k]
                if tap == 0.0:
                    continue
                source = &image[y0 + start[y] + k, x0, 0]
                for i in range(span):
                    line[i] += tap * <float>source[i]
            target = &out[y, 0, 0]
            if c == 3:
                for x in range(ow):
                    pycnn_taps3(line + 3 * start[oh + x], taps + oh * kh + x * kw, kw, sums)
                    target[3 * x] = _store(sums[0], <pixel_t>0)
                    target[3 * x + 1] = _store(sums[1], <pixel_t>0)
                    target[3 * x + 2] = _store(sums[2], <pixel_t>0)
            else:
                for x in range(ow):
                    for i in range(c):
                        a = 0.0
                        for k in range(kw):
                            a += taps[oh * kh + x * kw + k] * line[(start[oh + x] + k) * c + i]
                        target[x * c + i] = _store(a, <pixel_t>0)
    free(start)


# ---------------------------------------------------------------------------------------------
# Colours


cdef enum:
    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3


cdef inline float _clamp(float value, float limit) noexcept nogil:
    """Into 0..limit; NaN stays."""
    value = 0.0 if value < 0.0 else value
    return limit if value > limit else value


cdef inline float _grey(const float* p, Py_ssize_t c) noexcept nogil:
    return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2] if c == 3 else p[0]


cdef void _shift_hue(float* pixels, Py_ssize_t count, float shift) noexcept nogil:
    """Turn the hue angle of RGB pixels by `shift` turns; value and chroma stay."""
    cdef Py_ssize_t i, sector
    cdef float r, g, b, top, low, chroma, hue, part, q, t
    for i in range(count):
        r = pixels[3 * i]
        g = pixels[3 * i + 1]
        b = pixels[3 * i + 2]
        top = max(r, max(g, b))
        low = min(r, min(g, b))
        chroma = top - low
        if not chroma > 0.0:
            continue
        if top == r:
            hue = (g - b) / chroma
        elif top == g:
            hue = 2.0 + (b - r) / chroma
        else:
            hue = 4.0 + (r - g) / chroma
        # hue is in -1..5 and the shift in -1/2..1/2 turns of 6 sectors.
        hue += 6.0 * shift
        if hue < 0.0:
            hue += 6.0
        elif hue >= 6.0:
            hue -= 6.0
        sector = <Py_ssize_t>hue
        part = hue - sector
        q = top - chroma * part
        t = low + chroma * part
        if sector == 0:
            r = top; g = t; b = low
        elif sector == 1:
            r = q; g = top; b = low
        elif sector == 2:
            r = low; g = top; b = t
        elif sector == 3:
            r = low; g = q; b = top
        elif sector == 4:
            r = t; g = low; b = top
        elif sector == 5:
            r = top; g = low; b = q
        else:
            # -tiny + 6 rounds to 6, which is hue 0.
            r = top; g = low; b = low
        pixels[3 * i] = r
        pixels[3 * i + 1] = g
        pixels[3 * i + 2] = b


def jitter(const pixel_t[:, :, :, ::1] images, const double[:, ::1] factors,
           const uint8_t[:, ::1] order, pixel_t[:, :, :, ::1] out):
    """Brightness, contrast, saturation and hue of each image, one after the other.

    factors[n] are the three factors and the turn of the hue, order[n] is a permutation of 0..3:
    which comes first. A factor of 1, or a turn of 0, does nothing. Computed in float32, kept in
    0..255 (uint8) or 0..1 (float32) after each step, rounded once at the end.
    """
    _require(images.shape[0] == out.shape[0] and images.shape[1] == out.shape[1]
             and images.shape[2] == out.shape[2] and images.shape[3] == out.shape[3],
             "images and out differ in shape")
    _require(factors.shape[0] == out.shape[0] and factors.shape[1] == 4, "factors must be (N, 4)")
    _require(order.shape[0] == out.shape[0] and order.shape[1] == 4, "order must be (N, 4)")
    _require(out.shape[3] == 1 or out.shape[3] == 3, "images must have 1 or 3 channels")
    cdef Py_ssize_t n, step, i, c = out.shape[3], pixels = out.shape[1] * out.shape[2]
    cdef Py_ssize_t size = pixels * c
    cdef float limit = 255.0 if pixel_t is uint8_t else 1.0
    cdef float factor, grey
    cdef double total
    cdef float* work
    cdef const pixel_t* source
    cdef pixel_t* target
    if out.shape[0] * size == 0:
        return
    work = <float*>malloc(size * sizeof(float))
    if work == NULL:
        raise MemoryError()
    with nogil:
        for n in range(out.shape[0]):
            source = &images[n, 0, 0, 0]
            for i in range(size):
                work[i] = <float>source[i]
            for step in range(4):
                factor = <float>factors[n, order[n, step] & 3]
                if order[n, step] == HUE:
                    if factor != 0.0 and c == 3:
                        _shift_hue(work, pixels, factor)
                elif factor == 1.0:
                    continue
                elif order[n, step] == BRIGHTNESS:
                    for i in range(size):
                        work[i] = _clamp(work[i] * factor, limit)
                elif order[n, step] == CONTRAST:
                    total = 0.0
                    for i in range(pixels):
                        total += _grey(work + i * c, c)
                    grey = <float>(total / pixels) * (1.0 - factor)
                    for i in range(size):
                        work[i] = _clamp(work[i] * factor + grey, limit)
                elif c == 3:
                    for i in range(pixels):
                        grey = _grey(work + 3 * i, 3) * (1.0 - factor)
                        work[3 * i] = _clamp(work[3 * i] * factor + grey, limit)
                        work[3 * i + 1] = _clamp(work[3 * i + 1] * factor + grey, limit)
                        work[3 * i + 2] = _clamp(work[3 * i + 2] * factor + grey, limit)
            target = &out[n, 0, 0, 0]
            for i in range(size):
                target[i] = _store(work[i], <pixel_t>0)
    free(work)


def add_colour(const pixel_t[:, :, :, ::1] images, const float[:, ::1] shift,
               pixel_t[:, :, :, ::1] out):
    """out[n, y, x, c] = images[n, y, x, c] + shift[n, c]; uint8 is rounded and clamped."""
    _require(images.shape[0] == out.shape[0] and images.shape[1] == out.shape[1]
             and images.shape[2] == out.shape[2] and images.shape[3] == out.shape[3],
             "images and out differ in shape")
    _require(shift.shape[0] == out.shape[0] and shift.shape[1] == out.shape[3],
             "shift must be (N, C)")
    cdef Py_ssize_t n, i, k, c = out.shape[3], pixels = out.shape[1] * out.shape[2]
    cdef const pixel_t* source
    cdef pixel_t* target
    if out.shape[0] * pixels * c == 0:
        return
    with nogil:
        for n in range(out.shape[0]):
            source = &images[n, 0, 0, 0]
            target = &out[n, 0, 0, 0]
            for i in range(pixels):
                for k in range(c):
                    target[i * c + k] = _store(source[i * c + k] + shift[n, k], <pixel_t>0)


def erase(const pixel_t[:, :, :, ::1] images, const int64_t[:, ::1] boxes, const float[::1] fill,
          pixel_t[:, :, :, ::1] out):
    """A copy with rows boxes[n, 0]..boxes[n, 1] - 1, columns boxes[n, 2]..boxes[n, 3] - 1 filled.

    The box is cut at the borders of the image. fill has one value per channel.
    """
    _require(images.shape[0] == out.shape[0] and images.shape[1] == out.shape[1]
             and images.shape[2] == out.shape[2] and images.shape[3] == out.shape[3],
             "images and out differ in shape")
    _require(boxes.shape[0] == out.shape[0] and boxes.shape[1] == 4, "boxes must be (N, 4)")
    _require(fill.shape[0] == out.shape[3], "one fill per channel")
    cdef Py_ssize_t n, y, x, k, h = out.shape[1], w = out.shape[2], c = out.shape[3]
    if out.shape[0] * h * w * c == 0:
        return
    with nogil:
        memcpy(&out[0, 0, 0, 0], &images[0, 0, 0, 0], out.shape[0] * h * w * c * sizeof(pixel_t))
        for n in range(out.shape[0]):
            for y in range(max(boxes[n, 0], 0), min(boxes[n, 1], h)):
                for x in range(max(boxes[n, 2], 0), min(boxes[n, 3], w)):
                    for k in range(c):
                        out[n, y, x, k] = _store(fill[k], <pixel_t>0)


def mix(const pixel_t[:, ::1] rows, const int64_t[::1] partner, const float[::1] weight,
        pixel_t[:, ::1] out):
    """out[n] = weight[n] * rows[n] + (1 - weight[n]) * rows[partner[n]]."""
    _require(rows.shape[0] == out.shape[0] and rows.shape[1] == out.shape[1],
             "rows and out differ in shape")
    _require(partner.shape[0] == out.shape[0] and weight.shape[0] == out.shape[0],
             "one partner and one weight per row")
    cdef Py_ssize_t n, i, bad = -1, size = rows.shape[1]
    cdef const pixel_t* one
    cdef const pixel_t* two
    cdef pixel_t* target
    cdef float a, b
    if size == 0:
        return
    with nogil:
        for n in range(out.shape[0]):
            if partner[n] < 0 or partner[n] >= rows.shape[0]:
                bad = n
                break
            one = &rows[n, 0]
            two = &rows[partner[n], 0]
            target = &out[n, 0]
            a = weight[n]
            b = 1.0 - a
            for i in range(size):
                target[i] = _store(a * <float>one[i] + b * <float>two[i], <pixel_t>0)
    if bad >= 0:
        raise IndexError(f"partner {partner[bad]} at position {bad}, there are {rows.shape[0]} rows")


# ---------------------------------------------------------------------------------------------
# Sums over pixels


def moments(const pixel_t[:, :, :, ::1] images, bint crossed, double[::1] total,
            double[:, ::1] product):
    """Add the sum of each channel and of each product of two channels over all pixels.

    Without `crossed` only the diagonal of `product` is touched. uint8 is summed in integers, which
    is exact for fewer than 2^47 pixels a call; float32 in float64, pixel after pixel.
    """
    cdef Py_ssize_t n, i, j, k, c = images.shape[3], pixels = images.shape[1] * images.shape[2]
    _require(total.shape[0] == c and product.shape[0] == c and product.shape[1] == c,
             "total must be (C,), product (C, C)")
    cdef const pixel_t* p
    cdef uint64_t first, second
    cdef double real, square
    if images.shape[0] * pixels * c == 0:
        return
    with nogil:
        for j in range(c):
            for k in range(j, c if crossed else j + 1):
                first = 0
                second = 0
                real = 0.0
                square = 0.0
                for n in range(images.shape[0]):
                    p = &images[n, 0, 0, 0]
                    if pixel_t is uint8_t:
                        for i in range(pixels):
                            first += p[i * c + j]
                            second += <uint64_t>(<uint64_t>p[i * c + j] * p[i * c + k])
                    else:
                        for i in range(pixels):
                            real += p[i * c + j]
                            square += <double>p[i * c + j] * <double>p[i * c + k]
                if pixel_t is uint8_t:
                    real = <double>first
                    square = <double>second
                if j == k:
                    total[j] += real
                product[j, k] += square
                if j != k:
                    product[k, j] += square
