# Random numbers: Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a pure function
# of (seed, epoch, sample index, stream), with no state anywhere.

from libc.math cimport cos, log, sin, sqrt
from libc.stdint cimport int64_t, uint64_t

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
    """
    uint64_t pycnn_mulhi(uint64_t a, uint64_t b) noexcept nogil

# What a Philox counter is used for; one word of the counter keeps the uses apart.
cdef enum:
    PURPOSE_PARAMETERS = 0
    PURPOSE_FIELD = 1
    PURPOSE_NORMAL = 2

cdef double UNIT = 1.0 / 9007199254740992.0
cdef double TWO_PI = 6.283185307179586


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
