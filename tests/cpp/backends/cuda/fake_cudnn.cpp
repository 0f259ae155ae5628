// What fake_cudnn.h declares.
#include "backends/cuda/fake_cudnn.h"

#include <cstring>
#include <deque>
#include <mutex>
#include <string>

#include "backends/cuda/conv2d_cudnn.cpp"

namespace pycnn::cuda {

void conv2d_epilogue(DeviceQueue&, Image, const ConvShape&, const ConvEpilogue&, void*) {}

namespace {

cudnn::Status set(cudnn::Object object, int attribute, int, std::int64_t count,
                  const void* values) {
  FakeObject& self = fake_object(object);
  const auto other = [&] { return fake_object(*static_cast<void* const*>(values)); };
  switch (attribute) {
    case cudnn::kGraphHandle:
    case cudnn::kPlanHandle:
      self.handle = *static_cast<void* const*>(values);
      break;
    case cudnn::kTensorId:
      self.id = *static_cast<const std::int64_t*>(values);
      break;
    case cudnn::kTensorDataType:
      self.type = *static_cast<const int*>(values);
      break;
    case cudnn::kTensorDimensions: {
      const auto* const sizes = static_cast<const std::int64_t*>(values);
      self.dimensions.assign(sizes, sizes + count);
      break;
    }
    case cudnn::kReductionDeterministic:
      if (!fake.knows_repeating) return 3000;
      self.repeats = *static_cast<const bool*>(values);
      break;
    case cudnn::kReductionDescriptor:
      self.repeats = other().repeats;
      break;
    case cudnn::kGraphOperations:
      for (std::int64_t i = 0; i < count; ++i) {
        const FakeObject& operation = fake_object(static_cast<void* const*>(values)[i]);
        if (operation.kind == cudnn::kConvolutionGradInput) self.result = cudnn::kInput;
        if (operation.kind == cudnn::kConvolutionGradWeight) self.result = cudnn::kWeight;
        if (operation.kind != cudnn::kReductionOperation) continue;
        self.measures = true;
        self.repeats = operation.repeats;
      }
      break;
    case cudnn::kPackIds:
      self.ids.assign(static_cast<const std::int64_t*>(values),
                      static_cast<const std::int64_t*>(values) + count);
      break;
    case cudnn::kPackPointers:
      self.pointers.assign(static_cast<void* const*>(values),
                           static_cast<void* const*>(values) + count);
      break;
    case cudnn::kTensorStrides: {
      const auto* const strides = static_cast<const std::int64_t*>(values);
      self.strides.assign(strides, strides + count);
      break;
    }
    case cudnn::kHeuristicsGraph:
      self.handle = other().handle;
      self.result = other().result;
      self.engine = other().repeats    ? kFirstRepeating
                    : other().measures ? kFirstMeasuring
                                       : kFirstEngine;
      break;
    case cudnn::kHeuristicsMode:
      self.mode = *static_cast<const int*>(values);
      break;
    case cudnn::kPlanConfig:
      self.engine = other().engine;
      self.result = other().result;
      // Of one thread's handle, all of it.
      return other().handle == self.handle ? 0 : 3000;
    default:
      break;
  }
  return 0;
}

cudnn::Status get(cudnn::Object object, int attribute, int, std::int64_t wanted,
                  std::int64_t* count, void* values) {
  const FakeObject& self = fake_object(object);
  *count = 1;
  auto* const objects = static_cast<void**>(values);
  switch (attribute) {
    case cudnn::kHeuristicsResults:
      *count = self.mode == cudnn::kHeuristicsModeA ? kEngines : fake.fallbacks;
      for (std::int64_t i = 0; i < *count; ++i)
        fake_object(objects[i]) = {cudnn::kEngineConfig, self.handle, 0, self.engine + i, 0, 0,
                                   self.result};
      break;
    case cudnn::kConfigEngine:
      fake_object(objects[0]).engine = self.engine;
      break;
    case cudnn::kEngineIndex:
      *static_cast<std::int64_t*>(values) = self.engine;
      break;
    case cudnn::kPlanWorkspace:
      *static_cast<std::int64_t*>(values) =
          fake.workspaces.count(self.engine) > 0 ? fake.workspaces[self.engine] : 64;
      break;
    case cudnn::kPlanJson: {
      const std::string text = std::to_string(self.engine);
      *count = static_cast<std::int64_t>(text.size() + 1);
      if (wanted > 0) std::memcpy(values, text.c_str(), text.size() + 1);
      break;
    }
    default:
      *count = 0;
  }
  return 0;
}

// A result of ones and what fake_library.cpp says of it.
void leave(std::int64_t engine, std::int64_t result, const FakeObject& pack) {
  std::map<std::int64_t, void*> operands;
  for (std::size_t i = 0; i < pack.ids.size(); ++i) operands[pack.ids[i]] = pack.pointers[i];
  fake.last_operands = operands;
  std::int64_t count = 1;
  for (const std::int64_t size : fake.dimensions[result]) count *= size;
  const float one = fake.spoilt.count(engine) > 0 ? 1.1f : 1.0f;
  with_image(fake.types[result] == cudnn::kFloat32 ? Image::kFloat32 : Image::kBFloat16,
             [&](auto type) {
               decltype(type) stored{};
               narrow(one, stored);
               std::fill_n(static_cast<decltype(type)*>(operands[result]), count, stored);
             });
  if (engine < kFirstMeasuring) return;
  ++fake.measured;
  fake.operands = operands;
  const auto channels = fake.dimensions[result][1];
  const float second = result == cudnn::kOutput ? 2.0f : 7.0f;
  for (const auto& [id, right] : {std::pair{cudnn::kFirstSum, 3.0f}, {cudnn::kSecondSum, second}})
    for (std::int64_t c = 0; c < channels; ++c) {
      float& sum = static_cast<float*>(operands[id])[c];
      sum = (fake.adds.count(engine) > 0 ? sum : 0.0f) +
            (fake.wrong.count(engine) > 0 ? 2.0f : 1.0f) * right;
    }
}

}  // namespace

const cudnn::Functions& fake_cudnn_functions() {
  static const cudnn::Functions functions = {
      [] { return std::size_t{91000}; },
      [] { return std::size_t{13000}; },
      [](cudnn::Status) { return "trouble"; },
      [](cudnn::Handle* handle) {
        static std::mutex mutex;
        static std::deque<int> handles;  // for the life of the process, as those of a link
        const std::lock_guard lock(mutex);
        *handle = &handles.emplace_back();
        return 0;
      },
      [](cudnn::Handle) { return 0; },
      [](cudnn::Handle handle, void* stream) {
        fake.streams[handle] = stream;
        return 0;
      },
      [](int kind, cudnn::Object* object) {
        *object = new FakeObject{kind};
        ++fake.objects;
        return 0;
      },
      [](cudnn::Object object) {
        delete &fake_object(object);
        --fake.objects;
        return 0;
      },
      [](cudnn::Object object) {
        const FakeObject& self = fake_object(object);
        if (self.kind == cudnn::kTensor) {
          fake.strides[self.id] = self.strides;
          fake.dimensions[self.id] = self.dimensions;
          fake.types[self.id] = self.type;
        }
        if (self.kind == cudnn::kEngineHeuristics && fake.deaf.count(self.mode) > 0) return 3000;
        return self.kind == cudnn::kExecutionPlan && fake.unmade.count(self.engine) > 0 ? 3000 : 0;
      },
      set,
      get,
      [](cudnn::Handle handle, cudnn::Object plan, cudnn::Object pack) {
        const FakeObject& self = fake_object(plan);
        fake_cuda().effect([engine = self.engine, result = self.result,
                            packed = fake_object(pack)] { leave(engine, result, packed); });
        fake.executed.push_back({handle, fake.streams[handle], self.engine});
        fake_cuda().work(fake.us[self.engine]);
        return self.handle != handle && fake.loyal.count(self.engine) > 0 ? 3000 : 0;
      }};
  return functions;
}

Linked::Linked() {
  fake_cuda() = {};
  fake = {};
  fake.us = {{10, 10.0}, {11, 20.0}, {12, 30.0}};
  link.functions = &fake_cudnn_functions();
  const bool opened = Cudnn::open(link);
  REQUIRE(opened);
}

Linked::~Linked() {
  CHECK(fake.streams[link.for_runs] == nullptr);
  CHECK(fake_cuda().allocations == 0);
  forget_streams = nullptr;
  links().list.clear();
  fake_cuda() = {};
}

}  // namespace pycnn::cuda
