#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "pycnn/checkpoint.h"
#include "pycnn/error.h"
#include "pycnn/graph.h"
#include "support/temporary_directory.h"

using namespace pycnn;

namespace {

constexpr std::int64_t kOC = 4, kKH = 2, kKW = 3, kIC = 5;

Tensor counting(TensorSpec spec) {
  Tensor tensor(std::move(spec));
  auto* values = tensor.mutable_data<float>();
  for (std::int64_t i = 0; i < tensor.size(); ++i) values[i] = static_cast<float>(i);
  return tensor;
}

const TensorSpec kWeight{{kOC, kKH, kKW, kIC}, DType::kFloat32};
const TensorSpec kBias{{kOC}, DType::kFloat32};

Model sample() {
  Model model;
  const Symbol x = model.graph.input("x", {{2, 8, 8, kIC}, DType::kFloat32});
  const Symbol weight =
      model.graph.parameter("block.conv.weight", kWeight, {}, ParameterLayout::kConvWeight);
  const Symbol bias = model.graph.parameter("block.conv.bias", kBias);
  const ops::Conv2d conv;
  model.graph.set_output("y", model.graph.add(conv, {x, weight, bias}, "block.conv"));
  model.variables["block.conv.weight"] = counting(kWeight);
  model.variables["block.conv.bias"] = counting(kBias);
  model.metadata["class_names"] = "[\"a\"]";
  return model;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.spec() == b.spec() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// Whether `disk` is the (OC, IC, KH, KW) form of `memory`.
bool is_disk_form(const Tensor& disk, const Tensor& memory) {
  if (disk.shape() != Shape{kOC, kIC, kKH, kKW}) return false;
  for (std::int64_t o = 0; o < kOC; ++o) {
    for (std::int64_t i = 0; i < kIC; ++i) {
      for (std::int64_t h = 0; h < kKH; ++h) {
        for (std::int64_t w = 0; w < kKW; ++w) {
          const float expected = memory.data<float>()[((o * kKH + h) * kKW + w) * kIC + i];
          if (disk.data<float>()[((o * kIC + i) * kKH + h) * kKW + w] != expected) return false;
        }
      }
    }
  }
  return true;
}

}  // namespace

TEST_CASE("a model survives a file") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  const Model model = sample();
  save_model(path, model);
  const Model loaded = load_model(path);
  CHECK(loaded.graph.text() == model.graph.text());
  CHECK(loaded.metadata == model.metadata);
  REQUIRE(loaded.variables.size() == 2);
  for (const auto& [name, tensor] : model.variables) CHECK(same(loaded.variables.at(name), tensor));
}

TEST_CASE("convolution weights and their training state are OIHW in the file") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  Model model = sample();
  const Tensor weight = model.variables.at("block.conv.weight");
  const char* const converted[] = {"optim.momentum.block.conv.weight", "ema.block.conv.weight"};
  for (const char* name : converted) model.variables[name] = weight.clone();
  // Same shape, but nothing says that it belongs to the weight.
  const char* const plain[] = {"train.block.conv.weight", "optim.other", "ema.xblock.conv.weight"};
  for (const char* name : plain) model.variables[name] = weight.clone();
  // Belongs to it, in a shape of its own.
  model.variables["optim.steps.block.conv.weight"] = counting({{}, DType::kFloat32});

  save_model(path, model);
  const Checkpoint file = read_checkpoint(path);
  CHECK(is_disk_form(file.tensors.at("block.conv.weight"), weight));
  for (const char* name : converted) CHECK(is_disk_form(file.tensors.at(name), weight));
  for (const char* name : plain) CHECK(same(file.tensors.at(name), weight));
  CHECK(file.metadata.at("pycnn.format") == "1");
  CHECK(file.metadata.at("pycnn.graph") == model.graph.text());

  const Model loaded = load_model(path);
  REQUIRE(loaded.variables.size() == model.variables.size());
  for (const auto& [key, tensor] : model.variables) {
    const std::string& name = key;
    CAPTURE(name);
    CHECK(same(loaded.variables.at(name), tensor));
  }
}

TEST_CASE("training state belongs to the variable with the longest name") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  Model model = sample();
  // A plain variable whose name is the end of the convolution's.
  model.graph.parameter("weight", kWeight);
  model.variables["weight"] = counting(kWeight);
  model.variables["optim.m.block.conv.weight"] = counting(kWeight);
  model.variables["optim.m.weight"] = counting(kWeight);
  save_model(path, model);
  const Checkpoint file = read_checkpoint(path);
  CHECK(is_disk_form(file.tensors.at("optim.m.block.conv.weight"), counting(kWeight)));
  CHECK(same(file.tensors.at("optim.m.weight"), counting(kWeight)));
  const Model loaded = load_model(path);
  CHECK(same(loaded.variables.at("optim.m.block.conv.weight"), counting(kWeight)));
}

TEST_CASE("variables that do not fit are named when saving") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  Model model = sample();
  model.variables.erase("block.conv.bias");
  model.variables["extra"] = counting({{3}, DType::kFloat32});
  model.variables["block.conv.weight"] = counting({{1, 1, 1, 1}, DType::kFloat32});
  CHECK_THROWS_WITH_AS(save_model(path, model),
                       (std::string("save '") + path +
                        "': the variables do not fit the network\n"
                        "  missing (1):\n    'block.conv.bias' f32(4)\n"
                        "  unexpected (1):\n    'extra' f32(3)\n"
                        "  mismatched (1):\n    'block.conv.weight' is f32(1, 1, 1, 1), the "
                        "network has f32(4, 2, 3, 5)")
                           .c_str(),
                       ArgumentError);
  model = sample();
  model.variables["block.conv.bias"] = Tensor();
  CHECK_THROWS_WITH_AS(save_model(path, model), doctest::Contains("'block.conv.bias' is undefined"),
                       ArgumentError);
  CHECK(std::filesystem::is_empty(directory.path()));
}

TEST_CASE("tensors that do not fit are named when loading, the first ten of them") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  save_model(path, sample());
  Checkpoint file = read_checkpoint(path);
  file.tensors.erase("block.conv.bias");
  for (int i = 0; i < 25; ++i)
    file.tensors["layer" + std::to_string(i)] = counting({{1}, DType::kFloat32});
  file.tensors["block.conv.weight"] = counting(kWeight);  // not in the layout of files
  write_checkpoint(path, file);
  try {
    load_model(path);
    FAIL("loaded");
  } catch (const FormatError& error) {
    const std::string text = error.what();
    CAPTURE(text);
    CHECK(text.find("missing (1):\n    'block.conv.bias' f32(4)") != std::string::npos);
    CHECK(text.find("unexpected (25):\n    'layer0' f32(1)") != std::string::npos);
    CHECK(text.find("... and 15 more") != std::string::npos);
    CHECK(text.find("'block.conv.weight' is f32(4, 2, 3, 5), the network has f32(4, 5, 2, 3)") !=
          std::string::npos);
  }

  file = {};
  save_model(path, sample());
  file = read_checkpoint(path);
  file.tensors["block.conv.bias"] = Tensor({{kOC}, DType::kFloat64});
  write_checkpoint(path, file);
  CHECK_THROWS_WITH_AS(load_model(path),
                       doctest::Contains("'block.conv.bias' is f64(4), the network has f32(4)"),
                       FormatError);
}

TEST_CASE("a model in memory is the file's, and any other bytes are refused") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  const Model model = sample();
  save_model(path, model);
  const std::vector<std::byte> bytes = serialize_model(model);
  std::ifstream stream(path, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(stream)), {});
  REQUIRE(file.size() == bytes.size());
  CHECK(std::memcmp(file.data(), bytes.data(), bytes.size()) == 0);

  // Of any alignment, and not needed afterwards.
  std::vector<std::byte> moved(bytes.size() + 1);
  std::memcpy(moved.data() + 1, bytes.data(), bytes.size());
  const Model loaded = parse_model({moved.data() + 1, bytes.size()}, "resource");
  std::fill(moved.begin(), moved.end(), std::byte{0xFF});
  CHECK(loaded.graph.text() == model.graph.text());
  CHECK(loaded.metadata == model.metadata);
  for (const auto& [name, tensor] : model.variables) CHECK(same(loaded.variables.at(name), tensor));

  for (std::size_t length = 0; length < bytes.size(); length += 1 + length / 50) {
    CHECK_THROWS_AS(parse_model({bytes.data(), length}, "resource"), FormatError);
  }
  for (std::size_t at = 0; at < bytes.size(); at += 7) {
    std::vector<std::byte> damaged = bytes;
    damaged[at] ^= std::byte{0x10};
    try {
      (void)parse_model(damaged, "resource");
    } catch (const FormatError&) {
    } catch (const UnsupportedError&) {
    }
  }
  Checkpoint other = parse_checkpoint(bytes, "resource");
  other.metadata["pycnn.format"] = "2";
  CHECK_THROWS_WITH_AS(parse_model(serialize_checkpoint(other), "resource"),
                       doctest::Contains("load 'resource': written by a newer pycnn: format 2"),
                       FormatError);
  Model incomplete = sample();
  incomplete.variables.erase(incomplete.variables.begin());
  CHECK_THROWS_WITH_AS(serialize_model(incomplete),
                       doctest::Contains("serialize_model: the variables do not fit"),
                       ArgumentError);
}

TEST_CASE("files that hold no network, or one of another version, are refused") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  save_model(path, sample());
  const Checkpoint good = read_checkpoint(path);
  const auto with = [&](const char* key, const char* value) {
    Checkpoint file = good;
    if (value != nullptr) {
      file.metadata[key] = value;
    } else {
      file.metadata.erase(key);
    }
    write_checkpoint(path, file);
  };
  with("pycnn.format", "2");
  CHECK_THROWS_WITH_AS(load_model(path), doctest::Contains("written by a newer pycnn: format 2"),
                       FormatError);
  for (const char* bad : {"", "one", "0", "-1", "1.0", " 1", "99999999999999999999"}) {
    with("pycnn.format", bad);
    CHECK_THROWS_AS(load_model(path), FormatError);
  }
  with("pycnn.format", nullptr);
  CHECK_THROWS_WITH_AS(load_model(path), doctest::Contains("metadata 'pycnn.format' is missing"),
                       FormatError);
  with("pycnn.graph", nullptr);
  CHECK_THROWS_WITH_AS(load_model(path), doctest::Contains("metadata 'pycnn.graph' is missing"),
                       FormatError);
  for (const char* bad : {"", "x", "\x01", "graph"}) {
    with("pycnn.graph", bad);
    CHECK_THROWS_WITH_AS(load_model(path), doctest::Contains("metadata 'pycnn.graph'"),
                         FormatError);
  }
  with("other", "fine");
  CHECK(load_model(path).metadata.at("other") == "fine");
}

TEST_CASE("the file's own metadata cannot be forged through a model") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  Model model = sample();
  model.metadata["pycnn.format"] = "7";
  model.metadata["pycnn.graph"] = "none";
  model.metadata["pycnn.checksum"] = "none";
  save_model(path, model);
  CHECK(load_model(path).metadata == sample().metadata);
}
