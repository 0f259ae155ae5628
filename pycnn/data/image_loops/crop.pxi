# What moves or covers pixels and computes none: windows, mirroring, filled boxes.

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy


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
    _require_same_shape(&images.shape[0], &out.shape[0])
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


def erase(const pixel_t[:, :, :, ::1] images, const int64_t[:, ::1] boxes, const float[::1] fill,
          pixel_t[:, :, :, ::1] out):
    """A copy with rows boxes[n, 0]..boxes[n, 1] - 1, columns boxes[n, 2]..boxes[n, 3] - 1 filled.

    The box is cut at the borders of the image. fill has one value per channel.
    """
    _require_same_shape(&images.shape[0], &out.shape[0])
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
