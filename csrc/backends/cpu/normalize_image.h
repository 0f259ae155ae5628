#pragma once
#include <cstdint>

// Contract of normalize_image.isa.cpp: output[i] = input[i] * scale[i] + offset[i] for i < n.
namespace pycnn::cpu {

struct NormalizeImageFunctions {
  void (*from_u8)(const std::uint8_t* input, const float* scale, const float* offset, float* output,
                  std::int64_t n);
  void (*from_f32)(const float* input, const float* scale, const float* offset, float* output,
                   std::int64_t n);
};

namespace baseline {
extern const NormalizeImageFunctions kNormalizeImage;
}
namespace avx2 {
extern const NormalizeImageFunctions kNormalizeImage;
}
namespace avx512 {
extern const NormalizeImageFunctions kNormalizeImage;
}

}  // namespace pycnn::cpu
