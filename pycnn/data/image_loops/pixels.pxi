# What all loops share: the element types of images, checks, and rounding.

from libc.stdint cimport uint8_t

ctypedef fused pixel_t:
    uint8_t
    float


cdef int _require(bint condition, str what) except -1:
    if not condition:
        raise ValueError(f"pycnn.data._image: {what}")
    return 0


cdef int _require_same_shape(const Py_ssize_t* images, const Py_ssize_t* out) except -1:
    cdef int axis
    for axis in range(4):
        _require(images[axis] == out[axis], "images and out differ in shape")
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
