#pragma once
#include <atomic>

// Who keeps a stream beyond the work that was given to it lets it go before it ends.
namespace pycnn::cuda {

// With the device current. Null: nobody does.
using ForgetStreams = void (*)(int device) noexcept;
inline std::atomic<ForgetStreams> forget_streams = nullptr;

inline void before_streams_end(int device) noexcept {
  if (const ForgetStreams forget = forget_streams.load()) forget(device);
}

}  // namespace pycnn::cuda
