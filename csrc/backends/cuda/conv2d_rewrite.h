#pragma once
#include <functional>
#include <string>
#include <vector>

#include "backends/cuda/conv2d_call.h"
#include "backends/cuda/conv2d_maps.h"

// The same convolution by another one that libraries run well. What they run badly are channels
// that are no multiple of 16 bytes and groups of few:
//   blocks   a convolution with a stride over few channels becomes one with stride 1 over pixels
//            that hold stride x stride blocks, the border included: 7x7/2 of 3 channels is 4x4 of
//            12, and zeros up to 16
//   padded   zeros fill up the channels of images, results or both
//   joined   neighbouring groups become one, with zeros between them
// Images and weights are moved there (conv2d_maps.h), results and gradients back. All but the order
// of sums is exact, of finite numbers: infinity and NaN reach what zeros of the weights lie on, the
// neighbouring groups and pixels.
namespace pycnn::cuda {

struct ConvRewrite {
  std::string name;  // "blocks2x2c16", also part of what is kept of choices (plan_cache.h)
  ConvTask task;     // what is computed instead
  ConvTask original;
  bool moves_input = false, moves_output = false;
  BlockMap input, output;
  FilterMap weight;

  // What a step's scratch holds before that of `task`.
  std::int64_t scratch_bytes() const;
  // Of the weights of `task`, in the type of the images.
  std::int64_t packed_bytes() const;
};

// For one task each; the first ones zero-fill least. Empty: it is well as it is.
std::vector<ConvRewrite> rewrites_of(const ConvTask& task);
// Whether a library would run the task itself so badly that nobody needs to time it.
bool needs_rewrite(const ConvTask& task, bool tf32);

// Weights of `task` from those of the original one, in the type of the images, by a step of their
// own: joined with others of that kind, but for those of many weights and what is to stay `alone`.
PackedInput rewritten_weight(const ConvRewrite& rewrite, const char* format, bool alone);

// The original call by `inner`, which computes `task`. Where weights are read, those of `call` are
// packed, and `inner` gets them as they are. Of weights' gradients `inner` may leave 16 bits
// (`narrow`), which are widened, or kept, on their way back. `scratch` is of scratch_bytes() and
// of what `inner` needs, or of finish_scratch_bytes() if that is more.
using ConvRun = std::function<void(const ConvCall& call, std::byte* scratch)>;
void run_rewritten(DeviceQueue& queue, const ConvRewrite& rewrite, const ConvCall& call,
                   std::byte* scratch, bool narrow, const ConvRun& inner);
std::int64_t finish_scratch_bytes(const ConvRewrite& rewrite);

}  // namespace pycnn::cuda
