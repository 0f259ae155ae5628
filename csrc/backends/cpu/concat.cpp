#include <algorithm>
#include <cstring>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

constexpr std::int64_t kChunkBytes = 32 * 1024;

// A tensor seen from the concatenated axis: `outer` rows of `row_bytes` contiguous bytes.
std::size_t concat_axis(const KernelArgs& args) noexcept {
  const std::int64_t axis = op_of<ops::Concat>(args).axis;
  const auto rank = static_cast<std::int64_t>(args.outputs[0].spec->shape.size());
  return static_cast<std::size_t>(axis < 0 ? axis + rank : axis);
}
std::int64_t row_bytes(const TensorView& view, std::size_t axis) noexcept {
  auto bytes = static_cast<std::int64_t>(item_bytes(view.spec->dtype));
  for (std::size_t i = axis; i < view.spec->shape.size(); ++i) bytes *= view.spec->shape[i];
  return bytes;
}
std::int64_t outer_count(const TensorView& view, std::size_t axis) noexcept {
  std::int64_t count = 1;
  for (std::size_t i = 0; i < axis; ++i) count *= view.spec->shape[i];
  return count;
}

// Byte by byte: for every byte of the output, which input it comes from.
void concat_reference(const KernelArgs& args) noexcept {
  const std::size_t axis = concat_axis(args);
  auto* output = args.outputs[0].as<std::byte>();
  for (std::int64_t r = 0; r < outer_count(args.outputs[0], axis); ++r)
    for (const TensorView& input : args.inputs)
      for (std::int64_t b = 0, row = row_bytes(input, axis); b < row; ++b)
        *output++ = input.as<const std::byte>()[r * row + b];
}

// Bytes of a pixel, and from one to the next; a scalar is one pixel.
struct Pixels {
  explicit Pixels(const TensorView& view) noexcept
      : bytes(static_cast<std::int64_t>(item_bytes(view.spec->dtype))), pitch(bytes) {
    if (view.spec->shape.empty()) return;
    pitch *= view.pitch();
    bytes *= view.spec->shape.back();
  }
  std::int64_t bytes, pitch;
};

// `bytes` bytes of pixels that may lie apart.
void copy_pixels(std::byte* to, const Pixels& target, const std::byte* from, const Pixels& source,
                 std::int64_t bytes) noexcept {
  if (source.pitch == source.bytes && target.pitch == target.bytes) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return;
  }
  for (; bytes > 0; bytes -= source.bytes, to += target.pitch, from += source.pitch)
    std::memcpy(to, from, static_cast<std::size_t>(source.bytes));
}

void concat_copy(const KernelArgs& args) noexcept {
  const std::size_t axis = concat_axis(args);
  const Pixels target(args.outputs[0]);
  const std::int64_t row = row_bytes(args.outputs[0], axis);
  if (row == 0) return;
  // A row is whole pixels, or a part of one: then what is joined are channels.
  const bool channels = axis + 1 == args.outputs[0].spec->shape.size();
  const auto placed = [&](const Pixels& pixels, std::int64_t bytes) {
    return bytes / pixels.bytes * pixels.pitch;
  };
  auto* const output = args.outputs[0].as<std::byte>();
  auto body = [&](std::int64_t begin, std::int64_t end) {
    std::int64_t offset = 0;
    for (const TensorView& input : args.inputs) {
      const Pixels source(input);
      const std::int64_t bytes = row_bytes(input, axis);
      if (bytes == 0) continue;
      const std::int64_t source_row = placed(source, bytes), target_row = placed(target, row);
      const auto* from = input.as<const std::byte>() + begin * source_row;
      std::byte* to = output + begin * target_row + (channels ? offset : placed(target, offset));
      for (std::int64_t r = begin; r < end; ++r, from += source_row, to += target_row)
        if (channels)
          std::memcpy(to, from, static_cast<std::size_t>(bytes));
        else
          copy_pixels(to, target, from, source, bytes);
      offset += bytes;
    }
  };
  const std::int64_t grain = std::max<std::int64_t>(1, kChunkBytes / row);
  parallel_ranges(args.threads, outer_count(args.outputs[0], axis), grain, body);
}

Kernel make_copy(const ops::Concat& op, const Problem& problem) {
  Kernel kernel = plain_kernel<concat_copy>(op, problem);
  kernel.strided_inputs = ~0u;
  kernel.strided_outputs = 1;
  return kernel;
}

}  // namespace

template <>
struct VariantList<ops::Concat> {
  static constexpr Variant<ops::Concat> kAll[] = {
      {"concat.copy", Isa::kBaseline, accept_all, make_copy, Images::kAny},
      {"concat.reference", Isa::kBaseline, accept_all, plain_kernel<concat_reference>,
       Images::kAny}};
};
PYCNN_DEFINE_SELECT(ops::Concat)

}  // namespace pycnn::cpu
