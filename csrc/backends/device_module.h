#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "pycnn/ops.h"

// What the engine wants of a device with memory of its own, as a table of functions that a module,
// loaded on demand, fills in. The core holds no code of any vendor. Module and core are built from
// the same sources by compilers of one ABI, which `DeviceModuleHead` is there to check before
// anything else of the table is touched. Nothing throws across the table.
namespace pycnn {

// A queue of work on one device. It has lanes: what is given goes to the lane in use, at first lane
// 0. Work of one lane runs in the order in which it was given, that of several lanes side by side.
// Of the module.
struct DeviceQueue;
// A place in a lane's work, for other lanes and the host to wait for. Of the module.
struct DeviceEvent;
// Work that was recorded instead of run, to be replayed as one. Of the module.
struct DeviceRecording;

constexpr int kDeviceLanes = 4;
constexpr int kMainLane = 0, kCopyLane = 1, kFirstSideLane = 2;

// What a kernel of a device really gets; the views hold addresses of the device, and so does
// `plan`: Kernel::plan was copied there.
struct DeviceKernelArgs : KernelArgs {
  DeviceQueue* queue = nullptr;
  const void* state = nullptr;  // Kernel::state, of the host
};

struct DeviceFacts {
  std::string name;        // "NVIDIA H100"
  std::string capability;  // "9.0"
  std::size_t memory_bytes = 0;
};

struct DeviceModuleHead {
  std::uint32_t layout = 0;
  std::uint32_t op_count = 0;
  std::uint32_t op_bytes = 0;
  std::uint32_t selection_bytes = 0;
  std::uint32_t problem_bytes = 0;
  const char* version = "";  // of pycnn
  bool matches(const DeviceModuleHead& other) const {
    return layout == other.layout && op_count == other.op_count && op_bytes == other.op_bytes &&
           selection_bytes == other.selection_bytes && problem_bytes == other.problem_bytes;
  }
};

struct DeviceModule {
  DeviceModuleHead head;  // first, in every version
  // Whether device `index` can be used. `facts` say what it is, `problem` what is missing.
  bool (*probe)(int index, DeviceFacts& facts, std::string& problem) noexcept;
  // Whether there is a kernel for the problem on device `index`; otherwise `refusal` says why not.
  // A kernel's `run` takes DeviceKernelArgs and only gives work to the queue.
  bool (*select)(int index, const Op&, const Problem&, Selection&, std::string& refusal) noexcept;
  std::vector<std::string> (*variants)(const Op&) noexcept;
  bool (*merges)(const Siblings&) noexcept;                           // as Backend::merges
  bool (*measures)(const Op&, Specs inputs, Specs outputs) noexcept;  // as Backend::measures

  // Null, with the reason in `problem`, when the device cannot be had.
  DeviceQueue* (*open)(int index, std::string& problem) noexcept;
  void (*close)(DeviceQueue*) noexcept;
  // Kernels are given to the queue between these two, by one thread, whose device the queue's is
  // meanwhile. `leave` wants what `enter` gave. The functions below need neither.
  int (*enter)(DeviceQueue*) noexcept;
  void (*leave)(DeviceQueue*, int before) noexcept;
  // Aligned to 256 bytes. Null: there is no memory left.
  void* (*allocate)(DeviceQueue*, std::size_t bytes) noexcept;
  void (*release)(DeviceQueue*, void*) noexcept;
  std::size_t (*free_bytes)(DeviceQueue*) noexcept;
  // Host memory that copies are quick with and need no help of the host. Null: there is none left.
  void* (*allocate_host)(DeviceQueue*, std::size_t bytes) noexcept;
  void (*release_host)(DeviceQueue*, void*) noexcept;
  // To the device, within it and back, in the lane's order. Host memory must stay as it is until
  // they were waited for.
  void (*copy_in)(DeviceQueue*, void* device, const void* host, std::size_t bytes) noexcept;
  void (*copy_within)(DeviceQueue*, void* target, const void* source, std::size_t bytes) noexcept;
  void (*copy_out)(DeviceQueue*, void* host, const void* device, std::size_t bytes) noexcept;
  // Until all work of all lanes is done. False, with what the device said, when some of it failed
  // since this or `wait_for` was called last.
  bool (*wait)(DeviceQueue*, std::string& problem) noexcept;
  // Whether something is known to have failed since then. Waits for nothing.
  bool (*has_failed)(DeviceQueue*) noexcept;

  void (*use_lane)(DeviceQueue*, int lane) noexcept;
  // Null, with the reason in `problem`, when there is none. A timed one costs more to mark.
  DeviceEvent* (*make_event)(DeviceQueue*, bool timed, std::string& problem) noexcept;
  void (*forget_event)(DeviceEvent*) noexcept;
  // The event is reached when all that was given to the lane in use is done. Marking it again
  // forgets the former place.
  void (*mark)(DeviceQueue*, DeviceEvent*) noexcept;
  // What the lane in use is given from now on waits for the event as it was marked last.
  void (*follow)(DeviceQueue*, DeviceEvent*) noexcept;
  // Until the event, as it was marked last, is reached. The result is that of `wait`.
  bool (*wait_for)(DeviceQueue*, DeviceEvent*, std::string& problem) noexcept;
  // Microseconds between two timed events that were reached. Negative: it cannot be told.
  double (*elapsed_us)(DeviceQueue*, DeviceEvent* from, DeviceEvent* to) noexcept;

  // Work given between the two is recorded and not run. It begins and ends on lane 0; another lane
  // takes part once it follows an event marked in between, and lane 0 must follow its last one.
  // Null: it cannot be recorded, and was lost.
  void (*begin_recording)(DeviceQueue*) noexcept;
  DeviceRecording* (*end_recording)(DeviceQueue*, std::string& problem) noexcept;
  void (*replay)(DeviceQueue*, DeviceRecording*) noexcept;
  void (*forget)(DeviceRecording*) noexcept;

  // What this thread gives to queues meanwhile is shown under that name by tools that watch the
  // device. Ranges nest.
  void (*begin_range)(const char* name) noexcept;
  void (*end_range)() noexcept;
};

// Name and type of the one function that a module exports.
constexpr const char* kDeviceModuleEntry = "pycnn_device_module";
using DeviceModuleEntry = const DeviceModule* (*)();

// Raised whenever DeviceModule or what it passes changes its layout.
constexpr std::uint32_t kDeviceModuleLayout = 18;

inline DeviceModuleHead device_module_head(const char* version) {
  return {kDeviceModuleLayout,
          static_cast<std::uint32_t>(std::variant_size_v<AnyOp>),
          static_cast<std::uint32_t>(sizeof(Op)),
          static_cast<std::uint32_t>(sizeof(Selection)),
          static_cast<std::uint32_t>(sizeof(Problem)),
          version};
}

}  // namespace pycnn
