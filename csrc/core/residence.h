#pragma once
#include <cstdint>

#include "pycnn/tensor.h"

// Where the newest values of a tensor are. A run on a device leaves there what it wrote, and
// reading the tensor brings that home: to the host's memory, of which programs and users hold
// addresses.
//
// Locks: a reader holds one that all tensors share, then what the residence takes. What is said of
// a residence below happens under that second one, so that no reader takes an older state for home.
namespace pycnn {

class Residence {
 public:
  // Copies the values home once all work that was given is done, then says `come_home`; nothing
  // where they are there already. Throws DeviceError; the host's memory may be half written then.
  virtual void bring_home() = 0;

 protected:
  ~Residence() = default;
};

struct TensorResidence {
  // The host's memory, whatever is in it.
  static void* memory(const Tensor& tensor) noexcept;
  // Null: at home.
  static const Residence* of(const Tensor& tensor) noexcept;
  // Whether any tensor is not at home. Those that a caller has locked are counted.
  static bool any() noexcept;

  // A run wrote new values there: counts and gives a new version.
  static std::uint64_t move_to(const Tensor& tensor, Residence& residence) noexcept;
  static void come_home(const Tensor& tensor) noexcept;
  // Before the residence ends: brings the values home. Where that fails they are lost: reading the
  // tensor tells why, until it is overwritten.
  static void leave(const Tensor& tensor, const Residence& residence) noexcept;

  // Whether somebody holds a HostView.
  static bool is_viewed(const Tensor& tensor) noexcept;
};

}  // namespace pycnn
