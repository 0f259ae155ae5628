// Convolutions that cuBLASLt can compute, too: one library, both, and neither.
#include <string>

#include "backends/cuda/fake_cublaslt.h"
#include "backends/cuda/fake_cudnn.h"
#include "backends/cuda/fake_library.h"

namespace pycnn::cuda {
namespace {

// A 1x1 convolution's libraries, one of which may be missing.
struct BothLinked : Linked {
  BothLinked() {
    fake_cublaslt() = {};
    fake_cublaslt().multiplies = false;
    fake_cublaslt().us = {{0, 25.0}, {1, 15.0}};
    cublaslt.functions = &fake_cublaslt_functions();
    const bool opened = CublasLt::open(cublaslt);
    REQUIRE(opened);
    both.functions = &fake_cudnn_functions();
    both.first = &link;
    both.second = &cublaslt;
    task.shape.kernel_height = task.shape.kernel_width = 1;
    task.shape.top = task.shape.left = task.bottom = task.right = 0;
  }
  ~BothLinked() { CHECK(fake_cublaslt().objects == 0); }
  CublasLt::Link cublaslt;
  CudnnOrCublasLt::Link both;
  ConvTask task = small_task();

  // "cudnn" or "cublaslt" and its number.
  static std::string name(const Chosen<CudnnOrCublasLt>& chosen) {
    if (chosen.plan == nullptr) return "none";
    if (chosen.plan->first != nullptr)
      return "cudnn " + std::to_string(fake_object(chosen.plan->first->plan.object()).engine);
    return "cublaslt " + std::to_string(chosen.plan->second->algorithm.data[0]);
  }
  Chosen<CudnnOrCublasLt> fastest() {
    bool all = false;
    auto plans = made_plans<CudnnOrCublasLt>(
        0, task, offers_for<CudnnOrCublasLt>(both, task, nullptr, library_options()),
        library_options(), Clock::now(), all);
    RaceNotes notes;
    const auto best = fastest_plan<CudnnOrCublasLt>(0, both, task, false, plans, notes);
    return best ? *best : Chosen<CudnnOrCublasLt>{};
  }
  std::string untimed() {
    std::string why;
    return name(first_that_runs<CudnnOrCublasLt>(0, both, task, {nullptr}, library_options(), why));
  }
};

TEST_CASE("conv2d by cudnn or cublaslt: the fastest of both, untimed cuDNN's first") {
  BothLinked linked;
  for (const Direction direction :
       {Direction::kForward, Direction::kGradInput, Direction::kGradWeight}) {
    linked.task.direction = direction;
    fake.us[10] = 10.0;
    CHECK(linked.name(linked.fastest()) == "cudnn 10");
    fake.us[10] = 16.0;
    const Chosen<CudnnOrCublasLt> chosen = linked.fastest();
    CHECK(linked.name(chosen) == "cublaslt 1");
    CHECK(std::string(CudnnOrCublasLt::variant<ops::Conv2d>(*chosen.plan)) == "conv2d.cublaslt");
    CHECK(std::string(CudnnOrCublasLt::variant<ops::Conv2dGradWeight>(*chosen.plan)) ==
          "conv2d_grad_weight.cublaslt");
    CHECK(linked.untimed() == "cudnn 10");
  }
  fake.unmade = {10, 11, 12};
  CHECK(linked.untimed() == "cublaslt 0");
  fake_cublaslt().algorithms = 0;
  CHECK(linked.untimed() == "none");
  fake.unmade = {};
  CHECK(linked.name(linked.fastest()) == "cudnn 10");
}

TEST_CASE("conv2d by cudnn or cublaslt: an engine with a wrong result is not taken") {
  BothLinked linked;
  for (const Direction direction :
       {Direction::kForward, Direction::kGradInput, Direction::kGradWeight}) {
    linked.task.direction = direction;
    fake.spoilt = {10};
    fake.us[10] = 1.0;
    CHECK(linked.name(linked.fastest()) == "cublaslt 1");
    CHECK(linked.untimed() == "cudnn 11");
    fake.spoilt = {};
    CHECK(linked.name(linked.fastest()) == "cudnn 10");
  }
}

TEST_CASE("conv2d by cudnn or cublaslt: each reads what it wrote itself") {
  BothLinked linked;
  const LibraryOptions options = library_options();
  fake.us[10] = 16.0;
  const Chosen<CudnnOrCublasLt> second = linked.fastest();
  const auto read = [&](const std::string& text) {
    return linked.name(
        {nullptr, CudnnOrCublasLt::read(linked.both, linked.task, options, text), linked.task});
  };
  CHECK(read(CudnnOrCublasLt::text(*second.plan)) == "cublaslt 1");
  fake.us[10] = 1.0;
  const Chosen<CudnnOrCublasLt> first = linked.fastest();
  CHECK(linked.name(first) == "cudnn 10");
  CHECK(read(CudnnOrCublasLt::text(*first.plan)).starts_with("cudnn"));
  CHECK(read("10") == "none");
  // A key says which libraries there were.
  const std::string key = CudnnOrCublasLt::key(linked.both, linked.task, options);
  CHECK(key.starts_with(Cudnn::key(linked.link, linked.task, options)));
  CHECK(key.ends_with(CublasLt::key(linked.cublaslt, linked.task, options)));
  linked.cublaslt.functions = nullptr;
  CHECK(CudnnOrCublasLt::key(linked.both, linked.task, options) ==
        Cudnn::key(linked.link, linked.task, options));
}

TEST_CASE("conv2d by cudnn or cublaslt: one does without the other, which is told") {
  BothLinked linked;
  const LibraryOptions options = library_options();
  const std::string compiler = Cudnn::left_out(linked.link, options);
  CHECK(compiler.ends_with(" (PYCNN_NVRTC names /there/is/no/libnvrtc)"));
  CHECK(CudnnOrCublasLt::left_out(linked.both, options) == compiler);
  linked.cublaslt.functions = nullptr;
  linked.cublaslt.problem = "it is off";
  CHECK(linked.untimed() == "cudnn 10");
  CHECK(CudnnOrCublasLt::left_out(linked.both, options).ends_with("cuBLASLt: it is off"));
  {
    const testing::Variable off("PYCNN_NVRTC", "off");
    CHECK(!Cudnn::left_out(linked.link, options).ends_with(")"));
  }
  linked.cublaslt.functions = &fake_cublaslt_functions();
  linked.link.functions = nullptr;
  linked.link.problem = "there is none";
  CHECK(linked.name(linked.fastest()) == "cublaslt 1");
  CHECK(CudnnOrCublasLt::left_out(linked.both, options) == "cuDNN: there is none");
  CHECK(CudnnOrCublasLt::key(linked.both, linked.task, options) ==
        CublasLt::key(linked.cublaslt, linked.task, options));
  linked.link.functions = &fake_cudnn_functions();
}

TEST_CASE("conv2d by cudnn or cublaslt: who compiles is told what is missing, once each") {
  BothLinked linked;
  const LibraryOptions options = library_options();
  const auto told = [&](const LibraryOptions& with) {
    return CudnnOrCublasLt::missing(linked.link, linked.cublaslt, with);
  };
  const auto has = [](const std::string& line, const char* part) {
    return line.find(part) != std::string::npos;
  };
  // Of Linked: there is no compiler.
  REQUIRE(told(options).size() == 1);
  CHECK(told(options) == Cudnn::missing(linked.link, options));
  CHECK(told(options)[0].starts_with("NVRTC cannot be used (/there/is/no/libnvrtc"));
  CHECK(has(told(options)[0], "cuDNN has fewer kernels"));
  CHECK(told(options)[0].ends_with("; PYCNN_NVRTC names /there/is/no/libnvrtc"));
  {
    const testing::Variable unnamed("PYCNN_NVRTC", "");
    CHECK(told(options)[0].ends_with("; pip install 'pycnn[cuda]' brings it (nvidia-cuda-nvrtc)"));
  }
  LibraryOptions untimed = options;
  untimed.deterministic = true;  // which takes none that is compiled
  CHECK(told(untimed).empty());

  linked.cublaslt.functions = nullptr;
  linked.cublaslt.problem = "no such file";
  REQUIRE(told(untimed).size() == 1);
  CHECK(told(untimed)[0] ==
        "cuBLASLt cannot be used (no such file): pycnn's own kernels compute dense layers, likely "
        "slower; pip install 'pycnn[cuda]' brings it (nvidia-cublas)");
  CHECK(told(options).size() == 2);

  linked.link.functions = nullptr;
  linked.link.problem = "cuDNN is 9.1, 9.8 or a later 9 is needed";
  const std::vector<std::string> both = told(options);
  REQUIRE(both.size() == 2);  // without cuDNN nobody misses its compiler
  CHECK(both[0] ==
        "cuDNN cannot be used (cuDNN is 9.1, 9.8 or a later 9 is needed): pycnn's own "
        "kernels compute convolutions, likely slower; pip install 'pycnn[cuda]' brings "
        "it (nvidia-cudnn-cu13)");
  CHECK(has(both[1], "cuBLASLt"));
  {
    const testing::Variable cudnn("PYCNN_CUDNN", "/an/old/libcudnn.so");
    const testing::Variable cublaslt("PYCNN_CUBLASLT", "/no/libcublasLt.so");
    const std::vector<std::string> named = told(options);
    REQUIRE(named.size() == 2);
    CHECK(named[0].ends_with("likely slower; PYCNN_CUDNN names /an/old/libcudnn.so"));
    CHECK(named[1].ends_with("likely slower; PYCNN_CUBLASLT names /no/libcublasLt.so"));
    // Which is there and cannot be used: neither another file nor an installation would help.
    linked.link.is_loaded = linked.cublaslt.is_loaded = true;
    for (const std::string& line : told(options)) CHECK(line.ends_with("likely slower"));
    linked.link.is_loaded = linked.cublaslt.is_loaded = false;
  }
  {
    const testing::Variable off("PYCNN_CUDNN", "off");  // as was wanted
    CHECK(told(options) == std::vector<std::string>{both[1]});
  }
  linked.link.functions = &fake_cudnn_functions();
}

// A library that is loaded, and that has nothing for any device.
struct Unopened : Fake {
  static bool open(Link&) { return false; }
};

TEST_CASE("conv2d by cudnn or cublaslt: what is loaded and cannot be opened says so") {
  const Unopened::Link& link = link_of<Unopened>(0);
  CHECK(link.functions == nullptr);
  CHECK(link.problem == "fake cannot use the device");
  CHECK(link.is_loaded);
  CHECK(link_of<Fake>(0).is_loaded);
}

TEST_CASE("conv2d by cudnn or cublaslt: a choice tells what is missing of what computes it") {
  const testing::Variable cudnn("PYCNN_CUDNN", "/there/is/no/libcudnn");
  const testing::Variable cublaslt("PYCNN_CUBLASLT", "/there/is/no/libcublasLt");
  std::string problem;
  // They are looked for once in a process, and may have been there.
  if (load_cudnn(problem) != nullptr || load_cublaslt(problem) != nullptr) return;
  const auto missing = [](std::int64_t window) {
    const std::vector<TensorSpec> inputs = {{{1, 4, 4, 8}, DType::kFloat32},
                                            {{8, window, window, 8}, DType::kFloat32}};
    const std::vector<TensorSpec> outputs = {{{1, 5 - window, 5 - window, 8}, DType::kFloat32}};
    Problem problem;
    problem.inputs = inputs;
    problem.outputs = outputs;
    return select_library(0, ops::Conv2d{}, problem).missing;
  };
  REQUIRE(missing(3).size() == 1);
  CHECK(missing(3)[0].starts_with("cuDNN cannot be used ("));
  REQUIRE(missing(1).size() == 2);
  CHECK(missing(1)[0] == missing(3)[0]);
  CHECK(missing(1)[1].starts_with("cuBLASLt cannot be used ("));
}

TEST_CASE("conv2d by cudnn or cublaslt: a pinned product that is none is refused") {
  const std::vector<TensorSpec> inputs = {{{1, 4, 4, 8}, DType::kFloat32},
                                          {{8, 3, 3, 8}, DType::kFloat32}};
  const std::vector<TensorSpec> outputs = {{{1, 2, 2, 8}, DType::kFloat32}};
  Problem problem;
  problem.inputs = inputs;
  problem.outputs = outputs;
  problem.pinned = "conv2d.cublaslt";
  const Choice choice = select_library(0, ops::Conv2d{}, problem);
  const bool taken = choice.run != nullptr;
  CHECK(!taken);
  CHECK(std::string(choice.refusal) == "it is no product of two matrices");
}

}  // namespace
}  // namespace pycnn::cuda
