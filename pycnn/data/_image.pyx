# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""Hot loops over images: gather, normalise, crop, flip, warp, resize, colours, sums, random numbers.

Contract shared by all functions:

* Images are channels-last, C-contiguous, uint8 or float32; `out` never overlaps an input.
* Shapes are checked on entry (ValueError), then the GIL is released for the whole batch. There
  are no threads inside: the loader's Python threads run several calls side by side.
* Every sample is computed by itself, in one fixed order, so the bits do not depend on how samples
  are grouped into batches or shared among threads.

The parts are included rather than modules of their own: what Cython brings along to read arrays
is larger than the loops, and is compiled once this way.
"""

include "image_loops/pixels.pxi"
include "image_loops/random.pxi"
include "image_loops/rows.pxi"
include "image_loops/crop.pxi"
include "image_loops/warp.pxi"
include "image_loops/resize.pxi"
include "image_loops/colour.pxi"
include "image_loops/moments.pxi"
