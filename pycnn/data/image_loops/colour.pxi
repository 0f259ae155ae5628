# Brightness, contrast, saturation, hue, and shifts of colour.

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

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
    _require_same_shape(&images.shape[0], &out.shape[0])
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
    _require_same_shape(&images.shape[0], &out.shape[0])
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
