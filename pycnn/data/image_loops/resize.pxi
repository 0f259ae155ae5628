# Resampling to another size.

from libc.math cimport ceil, fabs, floor
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import numpy as np

cdef extern from *:
    """
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
    void pycnn_taps3(const float* line, const float* taps, long count, float* out) noexcept nogil


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
