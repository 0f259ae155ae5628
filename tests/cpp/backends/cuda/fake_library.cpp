// What fake_library.h declares, and what library_kernel.h calls: it takes its time and does
// nothing.
#include "backends/cuda/fake_library.h"

#include "backends/cuda/conv2d_rewrite.cpp"

namespace pycnn::cuda {

namespace {

void move(int& count, double us) {
  ++count;
  fake_cuda().work(us);
}
void run_own_kernel() { move(own_runs, own_us); }

}  // namespace

bool fits(const BlockMap&, int) { return true; }
void gather_blocks(DeviceQueue&, int, const BlockMap&, const void*, void*) {
  move(moves.gathers, moves.gather_us);
}
void scatter_blocks(DeviceQueue&, int, const BlockMap&, const void*, void*) {
  move(moves.scatters, moves.gather_us);
}
void finish_padded(DeviceQueue&, Image, const BlockMap&, const ConvEpilogue&, const void*, void*) {
  move(moves.finishes, moves.finish_us);
}
void map_filter(DeviceQueue&, Image, const FilterMap&, const float*, void*) {
  move(moves.packs, moves.pack_us);
}
void unmap_filter(DeviceQueue&, const FilterMap&, const float*, float*) {
  move(moves.unpacks, moves.pack_us);
}
std::int64_t conv2d_packed_bytes(Arithmetic, const ConvShape&, PackForm) { return 0; }
PackedInput packed_input(const PackTask&, std::int64_t bytes, const char* format, bool) {
  PackedInput packed;
  packed.input = 1;
  packed.bytes = static_cast<std::size_t>(bytes);
  packed.format = format;
  return packed;
}
std::int64_t conv2d_scratch_bytes(Arithmetic, const ConvShape&, MeasureKind, bool) { return 16; }
std::int64_t conv2d_grad_input_scratch_bytes(Arithmetic, const ConvShape&, MeasureKind, bool) {
  return 16;
}
std::int64_t conv2d_grad_weight_scratch_bytes(const ConvShape&, bool) { return 16; }
std::int64_t conv2d_grad_bias_scratch_bytes(const ConvShape&) { return 16; }
void conv2d(DeviceQueue&, Arithmetic, const ConvShape&, const void*, const ConvWeights&,
            const ConvEpilogue&, const Measure&, void*, void*) {
  run_own_kernel();
}
void conv2d_grad_input(DeviceQueue&, Arithmetic, const ConvShape&, const void*, const ConvWeights&,
                       const ConvEpilogue&, const Measure&, void*, void*) {
  run_own_kernel();
}
void conv2d_grad_weight(DeviceQueue&, Arithmetic, const ConvShape&, const void*, const void*,
                        float*, float*, void*) {
  run_own_kernel();
}
void conv2d_grad_bias(DeviceQueue&, Image, const ConvShape&, const void*, float*, void*) {}
void conv2d_gradient_epilogue(DeviceQueue&, Image, const ConvShape&, const ConvEpilogue&, void*) {
  move(moves.epilogues, moves.finish_us);
}
std::int64_t pass_tiles(std::int64_t rows) { return rows; }
std::int64_t measure_scratch_bytes(std::int64_t tiles, std::int64_t channels) {
  return tiles * channels;
}
void measure_pass(DeviceQueue&, Image, const Measure&, const void*, std::int64_t, std::int64_t,
                  void*) {
  move(moves.measures, moves.measure_us);
}
void finish_and_sum_pass(DeviceQueue&, Image, const ConvEpilogue&, const Measure&, void*,
                         std::int64_t, std::int64_t, void*) {
  move(moves.joined, moves.measure_us);
}
void cast(DeviceQueue&, Image, Image, const void*, void*, std::int64_t) { ++casts; }
void copy_box(DeviceQueue&, int item_bytes, const BoxParams& box) {
  CHECK(item_bytes == 2);
  CHECK(box.input != box.output);
  CHECK(box.count == box.shape[0] * box.shape[1]);
  CHECK(box.output_step[0] > box.input_step[0]);
  move(moves.copies, moves.copy_us);
}

std::map<int, std::vector<Scripted>> Fake::scripts;
int Fake::planned = 0, Fake::runs = 0, Fake::last_step = 0;
bool Fake::writes_apart = true;
double Fake::apart_us = 0.0;
std::string Fake::missing;
std::vector<std::pair<const void*, const void*>> Fake::places;
std::function<void()> Fake::while_compiling;
std::set<int> Fake::compilers;
std::mutex Fake::compiling;
cudaStream_t Fake::stream = nullptr;

}  // namespace pycnn::cuda
