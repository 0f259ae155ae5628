#include "pycnn/tensor.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

#include "core/fork.h"
#include "core/memory.h"
#include "core/residence.h"
#include "pycnn/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

// AddressSanitizer watches the borders of malloc'ed blocks only, and ends the process when one of
// them is absurdly large.
#if defined(__SANITIZE_ADDRESS__)
#define PYCNN_TENSOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PYCNN_TENSOR_ASAN 1
#endif
#endif

namespace pycnn {
namespace {

struct DTypeInfo {
  DType dtype;
  std::size_t bytes;
  const char* short_name;
  const char* long_name;
};

constexpr DTypeInfo kDTypes[] = {
    {DType::kFloat32, 4, "f32", "float32"},    {DType::kFloat64, 8, "f64", "float64"},
    {DType::kBFloat16, 2, "bf16", "bfloat16"}, {DType::kFloat16, 2, "f16", "float16"},
    {DType::kUInt8, 1, "u8", "uint8"},         {DType::kInt32, 4, "i32", "int32"},
    {DType::kInt64, 8, "i64", "int64"},
};

const DTypeInfo& info(DType dtype) noexcept { return kDTypes[static_cast<std::size_t>(dtype)]; }

constexpr std::int64_t kMaxCount = std::int64_t{1} << 62;
constexpr std::size_t kAlignment = 64;
#if defined(__linux__)
constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
#if defined(PYCNN_TENSOR_ASAN)
constexpr std::size_t kMapFrom = std::size_t{1} << 30;
#else
constexpr std::size_t kMapFrom = kHugePage;
#endif
#endif

std::size_t round_up(std::size_t value, std::size_t unit) noexcept {
  return (value + unit - 1) / unit * unit;
}

// Zero-filled memory, or null.
void* allocate(std::size_t bytes) noexcept {
#if defined(__linux__)
  if (bytes >= kMapFrom) {
    // Straight from the kernel: the pages are already zero, and a block that starts on a huge page
    // can be made of them.
    const std::size_t wanted = round_up(bytes, kPage);
    const std::size_t reserved = wanted + kHugePage;
    void* const base =
        ::mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    const auto start = reinterpret_cast<std::uintptr_t>(base);
    const std::uintptr_t aligned = round_up(start, kHugePage);
    if (aligned > start) ::munmap(base, aligned - start);
    const std::size_t tail = start + reserved - (aligned + wanted);
    if (tail > 0) ::munmap(reinterpret_cast<void*>(aligned + wanted), tail);
    void* const data = reinterpret_cast<void*>(aligned);
    (void)::madvise(data, wanted,
                    MADV_HUGEPAGE);  // advice only: without huge pages it is merely slower
    return data;
  }
#endif
  if (bytes > std::numeric_limits<std::size_t>::max() - kAlignment) return nullptr;
  const std::size_t padded = std::max(round_up(bytes, kAlignment), kAlignment);
  void* const data = std::aligned_alloc(kAlignment, padded);
  if (data != nullptr) std::memset(data, 0, padded);
  return data;
}

void release(void* data, std::size_t bytes) noexcept {
#if defined(__linux__)
  if (bytes >= kMapFrom) {
    ::munmap(data, round_up(bytes, kPage));
    return;
  }
#endif
  (void)bytes;
  std::free(data);
}

const TensorSpec& empty_spec() noexcept {
  static const TensorSpec spec;
  return spec;
}

}  // namespace

std::size_t item_bytes(DType dtype) noexcept { return info(dtype).bytes; }
const char* short_name(DType dtype) noexcept { return info(dtype).short_name; }
const char* long_name(DType dtype) noexcept { return info(dtype).long_name; }

DType parse_dtype(std::string_view name) {
  for (const DTypeInfo& entry : kDTypes) {
    if (name == entry.short_name || name == entry.long_name) return entry.dtype;
  }
  std::string known;
  for (const DTypeInfo& entry : kDTypes)
    known += (known.empty() ? "" : ", ") + std::string(entry.long_name);
  throw DTypeError("dtype '" + std::string(name.substr(0, 64)) + "' is unknown\n  known: " + known);
}

bool is_floating(DType dtype) noexcept {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kBFloat16 ||
         dtype == DType::kFloat16;
}

std::int64_t element_count(const Shape& shape) {
  // Zero axes do not hide an overflow of the others: offsets inside a shape are products of some of
  // its axes.
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t axis : shape) {
    if (axis < 0)
      throw ShapeError("shape " + to_string(shape) + " has the negative axis " +
                       std::to_string(axis));
    if (axis == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, axis, &product) || product > kMaxCount) {
      throw ShapeError("shape " + to_string(shape) + " holds more than 2^62 elements");
    }
  }
  return empty ? 0 : product;
}

std::size_t byte_size(const TensorSpec& spec) {
  const auto count = static_cast<std::uint64_t>(element_count(spec.shape));
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(count, std::uint64_t{item_bytes(spec.dtype)}, &bytes) ||
      bytes > static_cast<std::uint64_t>(kMaxCount) ||
      bytes > std::numeric_limits<std::size_t>::max()) {
    throw ShapeError("tensor " + to_string(spec) + " needs more than 2^62 bytes");
  }
  return static_cast<std::size_t>(bytes);
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

std::string to_string(const TensorSpec& spec) {
  return short_name(spec.dtype) + to_string(spec.shape);
}

namespace {

// Of all tensors that are not at home: held while one is brought home or its residence ends.
class Homecoming {
 public:
  // Never destroyed: tensors in static variables may outlive any other static.
  static std::mutex& mutex() {
    static Homecoming* const homecoming = new Homecoming;
    return homecoming->mutex_;
  }

 private:
  std::mutex mutex_;  // taken around a fork, so that it is free in the child
  ForkHooks hooks_{&mutex_,
                   {[](void* mutex) noexcept { static_cast<std::mutex*>(mutex)->lock(); },
                    [](void* mutex) noexcept { static_cast<std::mutex*>(mutex)->unlock(); },
                    [](void* mutex) noexcept { static_cast<std::mutex*>(mutex)->unlock(); }}};
};

// Where values are that could not be brought home.
class Lost final : public Residence {
 public:
  void bring_home() override { throw DeviceError("the values of a tensor were lost"); }
  static Lost& place() noexcept {
    static Lost lost;
    return lost;
  }
};

std::atomic<std::int64_t> tensors_away{0};

}  // namespace

struct Tensor::Storage {
  TensorSpec spec;
  std::int64_t size = 0;
  std::size_t bytes = 0;
  void* data = nullptr;
  std::atomic<std::uint64_t> version{1};
  std::atomic<Residence*> residence{nullptr};
  std::atomic<int> views{0};
  std::string why_lost;  // guarded by Homecoming's mutex

  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage() {
    settle(nullptr);
    if (data != nullptr) release(data, bytes);
  }

  void settle(Residence* at) noexcept {
    const Residence* const before = residence.exchange(at);
    if (before == nullptr && at != nullptr) tensors_away.fetch_add(1, std::memory_order_relaxed);
    if (before != nullptr && at == nullptr) tensors_away.fetch_sub(1, std::memory_order_relaxed);
  }

  bool is_home() const noexcept { return residence.load() == nullptr; }

  void bring_home() {
    const std::lock_guard lock(Homecoming::mutex());
    Residence* const at = residence.load();
    if (at == &Lost::place()) throw DeviceError(why_lost);
    if (at != nullptr) at->bring_home();
  }

  std::uint64_t count_version() noexcept {
    return version.fetch_add(1, std::memory_order_acq_rel) + 1;
  }
};

Tensor::Tensor(TensorSpec spec) {
  const std::int64_t size = element_count(spec.shape);
  const std::size_t bytes = byte_size(spec);
  expect_memory("tensor " + to_string(spec) + ": wants", bytes);
  try {
    auto storage = std::make_shared<Storage>();
    storage->data = allocate(bytes);
    if (storage->data == nullptr) throw std::bad_alloc();
    storage->size = size;
    storage->bytes = bytes;
    storage->spec = std::move(spec);
    storage_ = std::move(storage);
  } catch (const std::bad_alloc&) {
    const std::size_t available = available_memory();
    throw MemoryLimitError("tensor " + to_string(spec) + ": no memory for " +
                               std::to_string(bytes) + " bytes, " + std::to_string(available) +
                               " are available",
                           bytes, available);
  }
}

const TensorSpec& Tensor::spec() const noexcept { return storage_ ? storage_->spec : empty_spec(); }
std::int64_t Tensor::size() const noexcept { return storage_ ? storage_->size : 0; }
std::size_t Tensor::bytes() const noexcept { return storage_ ? storage_->bytes : 0; }

const void* Tensor::raw() const {
  if (!storage_) return nullptr;
  if (!storage_->is_home()) storage_->bring_home();
  return storage_->data;
}

void* Tensor::mutable_raw() {
  if (!storage_) return nullptr;
  if (!storage_->is_home()) storage_->bring_home();
  storage_->count_version();
  return storage_->data;
}

void* Tensor::overwrite() noexcept {
  if (!storage_) return nullptr;
  if (!storage_->is_home()) {
    const std::lock_guard lock(Homecoming::mutex());
    storage_->settle(nullptr);
  }
  storage_->count_version();
  return storage_->data;
}

std::uint64_t Tensor::version() const noexcept {
  return storage_ ? storage_->version.load(std::memory_order_acquire) : 0;
}

void Tensor::mark_written() {
  if (!storage_) return;
  if (!storage_->is_home())
    throw ArgumentError("tensor " + to_string(spec()) +
                        ": marked as written, but since the pointer was taken a program on a GPU "
                        "has written new values\n  hint: take mutable_raw() again before writing");
  storage_->count_version();
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor copy(spec());
  std::memcpy(copy.storage_->data, raw(), bytes());
  return copy;
}

HostView::HostView(Tensor tensor) : tensor_(std::move(tensor)) {
  if (!tensor_.defined()) return;
  // Counted first: a run that ends meanwhile brings its values home, or they are brought here.
  tensor_.storage_->views.fetch_add(1);
  try {
    (void)tensor_.raw();
  } catch (...) {
    tensor_.storage_->views.fetch_sub(1);
    throw;
  }
}

HostView::~HostView() {
  if (tensor_.defined()) tensor_.storage_->views.fetch_sub(1);
}

const void* HostView::raw() const noexcept { return TensorResidence::memory(tensor_); }

void* TensorResidence::memory(const Tensor& tensor) noexcept {
  return tensor.storage_ ? tensor.storage_->data : nullptr;
}

const Residence* TensorResidence::of(const Tensor& tensor) noexcept {
  return tensor.storage_ ? tensor.storage_->residence.load() : nullptr;
}

bool TensorResidence::any() noexcept { return tensors_away.load(std::memory_order_relaxed) != 0; }

std::uint64_t TensorResidence::move_to(const Tensor& tensor, Residence& residence) noexcept {
  const std::uint64_t version = tensor.storage_->count_version();
  tensor.storage_->settle(&residence);
  return version;
}

void TensorResidence::come_home(const Tensor& tensor) noexcept { tensor.storage_->settle(nullptr); }

void TensorResidence::leave(const Tensor& tensor, const Residence& residence) noexcept {
  Tensor::Storage& storage = *tensor.storage_;
  // Also where it is home already: a reader who found it away may be on its way to the residence.
  const std::lock_guard lock(Homecoming::mutex());
  Residence* const at = storage.residence.load();
  if (at != &residence) return;
  try {
    at->bring_home();
    return;
  } catch (const std::exception& error) {
    try {
      storage.why_lost = error.what();
    } catch (...) {
      storage.why_lost.clear();
    }
  }
  storage.settle(&Lost::place());
}

bool TensorResidence::is_viewed(const Tensor& tensor) noexcept {
  return tensor.storage_->views.load() > 0;
}

}  // namespace pycnn
