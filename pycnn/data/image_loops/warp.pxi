# Geometric distortion: affine transforms and smooth random displacement, in one resampling.

from libc.math cimport cos, sin, tan
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np


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
    _require_same_shape(&images.shape[0], &out.shape[0])
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
