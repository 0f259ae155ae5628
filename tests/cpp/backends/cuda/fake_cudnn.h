#pragma once
#ifndef PYCNN_VERSION
#define PYCNN_VERSION "test"
#endif
#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "backends/cuda/conv2d_cudnn.h"
#include "backends/cuda/fake_library.h"

// For tests of how plans of cuDNN are made, tried and executed: a library of which each object is a
// few numbers, and a runtime whose clock the tests know (support/fake_cuda).
namespace pycnn::cuda {

struct FakeObject {
  int kind;
  void* handle = nullptr;
  int mode = 0;
  std::int64_t engine = 0;
  std::int64_t id = 0;  // of a tensor
  int type = 0;
  std::int64_t result = cudnn::kOutput;  // of a graph and what is made of it
  std::vector<std::int64_t> strides = {}, dimensions = {};
  bool measures = false, repeats = false;  // a graph and what is made of it
  std::vector<std::int64_t> ids = {};      // of a pack
  std::vector<void*> pointers = {};
};
struct Executed {
  void* handle;
  void* stream;
  std::int64_t engine;
};
struct FakeCudnn {
  std::set<int> deaf;             // modes of heuristics that fail
  std::int64_t fallbacks = 0;     // engines of the second mode
  std::set<std::int64_t> unmade;  // engines whose plans cannot be made
  std::set<std::int64_t> loyal;   // that are executed with the handle of their plan alone
  std::map<std::int64_t, double> us;
  std::map<std::int64_t, std::int64_t> workspaces;  // of other sizes than 64
  std::map<void*, void*> streams;                   // by handle
  std::vector<Executed> executed;
  std::map<std::int64_t, std::vector<std::int64_t>> strides;  // by the name of a tensor
  std::map<std::int64_t, std::vector<std::int64_t>> dimensions;
  bool knows_repeating = true;             // what 9.11 brought
  std::set<std::int64_t> adds, wrong;      // engines that add to what lies there, that count twice
  std::map<std::int64_t, void*> operands;  // of the last run that measured
  int measured = 0;                        // how often
  std::map<std::int64_t, void*> last_operands;
  std::map<std::int64_t, int> types;
  std::set<std::int64_t> spoilt;  // engines that leave results a tenth too large
  int objects = 0;
};
inline FakeCudnn fake;
// Of graphs that measure, and of those whose sums are to be the same each time.
constexpr std::int64_t kFirstMeasuring = 20, kFirstRepeating = 30;
constexpr std::int64_t kFirstEngine = 10, kEngines = 3;

inline FakeObject& fake_object(cudnn::Object object) { return *static_cast<FakeObject*>(object); }
const cudnn::Functions& fake_cudnn_functions();

// A link to the library, for as long as the process lives; engines are slower one after another.
struct Linked {
  Linked();
  ~Linked();
  Linked(const Linked&) = delete;
  Linked& operator=(const Linked&) = delete;
  const std::unique_ptr<Cudnn::Link> owned = std::make_unique<Cudnn::Link>();
  Cudnn::Link& link = *owned;
  // As test_cudnn_graph.cpp has it: it is looked for once.
  const testing::Variable no_compiler{"PYCNN_NVRTC", "/there/is/no/libnvrtc"};
};

inline ConvTask small_task() {
  ConvTask task;
  task.image = Image::kFloat32;
  ConvShape& s = task.shape;
  s.images = 2;
  s.height = s.width = s.out_height = s.out_width = 4;
  s.in_channels = s.out_channels = 8;
  s.kernel_height = s.kernel_width = 3;
  s.stride_y = s.stride_x = s.dilation_y = s.dilation_x = s.groups = 1;
  s.top = s.left = task.bottom = task.right = 1;
  return task;
}

inline std::int64_t engine_of(const Chosen<Cudnn>& chosen) {
  return chosen.plan != nullptr ? fake_object(chosen.plan->plan.object()).engine : 0;
}

}  // namespace pycnn::cuda
