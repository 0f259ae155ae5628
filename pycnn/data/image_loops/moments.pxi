# Sums over pixels, for means, deviations and the principal axes of colour.

from libc.stdint cimport uint64_t, uint8_t


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
