# Rows of elements: picked, normalised, mixed.

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy


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
