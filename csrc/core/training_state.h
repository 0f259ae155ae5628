#pragma once
#include <string_view>

namespace pycnn {

// Whether a variable belongs to a training rather than to a network, by its name.
inline bool is_training_state(std::string_view name) noexcept {
  return name.starts_with("optim.") || name.starts_with("train.") || name.starts_with("ema.");
}

}  // namespace pycnn
