// What plans of cuDNN want in 16 bits, and leave so.
#include "backends/cuda/fake_cudnn.h"
#include "backends/cuda/stream_users.h"

namespace pycnn::cuda {
namespace {

TEST_CASE("conv2d by cudnn: a bias in 16 bits is cast unless it was packed") {
  const Linked linked;
  ConvTask task = small_task();
  task.image = Image::kBFloat16;
  task.bias = true;
  CudnnEngines joined(linked.link, joined_problem(task), {}),
      plain(linked.link, plain_problem(task), {});
  const auto plan = joined.plan(0, kFirstEngine, true, 0);
  REQUIRE(plan != nullptr);
  CHECK(Cudnn::packs_bias(*plan));
  CHECK(!Cudnn::packs_bias(*plain.plan(0, kFirstEngine, true, 0)));
  cudnn::ConvProblem wide = joined_problem(task);
  wide.image = Image::kFloat32;
  CHECK(!Cudnn::packs_bias(*CudnnEngines(linked.link, wide, {}).plan(0, kFirstEngine, true, 0)));
  DeviceQueue queue;
  std::vector<std::byte> data(2 * 4 * 4 * 8 * 4),
      scratch(static_cast<std::size_t>(plan->scratch_bytes()));
  std::vector<float> bias(8);
  std::vector<std::uint16_t> packed(8);
  ConvCall call{};
  call.input = call.output = data.data();
  call.epilogue.bias = bias.data();
  casts = 0;
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  auto* const cast_bias = static_cast<std::byte*>(fake.last_operands[cudnn::kBias]);
  CHECK(cast_bias == scratch.data() + plan->layout.bias);
  call.epilogue.bias = nullptr;
  call.packed_bias = packed.data();
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  CHECK(fake.last_operands[cudnn::kBias] == packed.data());
  // What a race finds is run with the bias that it wants, whatever joins it.
  std::string why;
  const Chosen<Cudnn> chosen =
      first_that_runs<Cudnn>(0, linked.link, task, {nullptr}, library_options(), why);
  CHECK(packs_bias(chosen));
  CHECK(why.empty());
  before_streams_end(linked.link.device);
}

TEST_CASE("conv2d by cudnn: a gradient of 16 bits is widened unless it is wanted as it is") {
  const Linked linked;
  ConvTask task = small_task();
  CHECK(!Cudnn::leaves_narrow(
      *CudnnEngines(linked.link, plain_problem(task), {}).plan(0, 10, false, 0)));
  task.image = Image::kBFloat16;
  CHECK(!Cudnn::leaves_narrow(
      *CudnnEngines(linked.link, plain_problem(task), {}).plan(0, 10, false, 0)));
  task.direction = Direction::kGradWeight;
  const auto plan = CudnnEngines(linked.link, plain_problem(task), {}).plan(0, 10, false, 0);
  REQUIRE(plan != nullptr);
  CHECK(Cudnn::leaves_narrow(*plan));
  CHECK(leaves_narrow(Chosen<CudnnOrCublasLt>{
      nullptr, std::make_shared<CudnnOrCublasLt::Plan>(CudnnOrCublasLt::Plan{plan, nullptr}),
      task}));
  CHECK(leaves_narrow(Chosen<Cudnn>{std::make_shared<const ConvRewrite>(), plan, task}));
  // cuBLASLt's are float32.
  CHECK(!leaves_narrow(
      Chosen<CudnnOrCublasLt>{nullptr, std::make_shared<CudnnOrCublasLt::Plan>(), task}));
  DeviceQueue queue;
  const auto weights = static_cast<std::size_t>(task.shape.weights());
  std::vector<std::byte> data(2 * 4 * 4 * 8 * 2),
      scratch(static_cast<std::size_t>(plan->scratch_bytes()));
  std::vector<float> wide(weights), bias(8);
  std::vector<std::uint16_t> narrow(weights);
  ConvCall call{};
  call.input = call.output = data.data();
  call.grad_weight = wide.data();
  casts = 0;
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  CHECK(fake.last_operands[cudnn::kWeight] == scratch.data() + plan->layout.weight);
  call.grad_weight = nullptr;
  call.narrow_grad_weight = narrow.data();
  call.grad_bias = bias.data();
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  CHECK(fake.last_operands[cudnn::kWeight] == narrow.data());
  CHECK(narrow == std::vector<std::uint16_t>(weights, 0x3F80));  // ones
  CHECK(bias == std::vector<float>(8, 1.0f));
  CHECK(!queue.failed());
  before_streams_end(linked.link.device);
}

}  // namespace
}  // namespace pycnn::cuda
