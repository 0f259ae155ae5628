// Gradients of the weights of convolutions of few channels, which would fill a corner of a tile:
// a thread has a place of the window (or the bias) for all output channels, and a share of the
// pixels. These are dealt in pieces of rows, so that a thread knows at once which pixels of a piece
// its place meets.
#include "backends/cuda/conv2d_direct.h"
#include "backends/cuda/divider.h"
#include "backends/cuda/launch.h"

namespace pycnn::cuda {
namespace {

constexpr int kWeightThreads = 256;
constexpr int kMostPiece = 32;   // pixels
constexpr int kMostAtOnce = 16;  // pieces that lie in shared memory
// Two blocks for each multiprocessor of the largest GPUs, which add up two rounds of pieces at
// least: each chunk is a sum more for what adds them.
constexpr std::int64_t kMostChunks = 264, kLeastRounds = 2;

// How a block shares out its work; of the shape alone.
struct Deal {
  int places;   // of the window, and one of the bias, whether it is wanted or not
  int sharers;  // threads that have the same place and the same piece
  int at_once;  // pieces
  int piece;    // pixels of one, or fewer at the end of a row
  int across;   // pieces of a row
  std::int64_t pieces;
  int rounds;  // of a block
  std::int64_t chunks;
};

// Where windows are single pixels that follow one another all images are one row.
ConvShape as_rows(ConvShape s) {
  if (s.taps() == 1 && s.stride_y == 1 && s.stride_x == 1 && s.top == 0 && s.left == 0 &&
      s.out_height == s.height && s.out_width == s.width) {
    s.width = s.out_width = static_cast<int>(s.pixels());
    s.images = s.height = s.out_height = 1;
  }
  return s;
}

std::int64_t quotient_up(std::int64_t number, std::int64_t by) { return (number + by - 1) / by; }
int at_least_one(std::int64_t number) { return number > 1 ? static_cast<int>(number) : 1; }

// Of a shape as rows.
Deal deal_of(const ConvShape& s) {
  Deal deal{};
  deal.places = s.window() + 1;
  const int lanes = kWeightThreads / deal.places;
  deal.sharers = static_cast<int>(quotient_up(lanes, kMostAtOnce));
  deal.at_once = lanes / deal.sharers;
  deal.across = at_least_one(quotient_up(s.out_width, kMostPiece));
  deal.piece = at_least_one(quotient_up(s.out_width, deal.across));
  deal.pieces = s.out_width > 0 ? std::int64_t{s.images} * s.out_height * deal.across : 0;
  const std::int64_t rounds = quotient_up(deal.pieces, deal.at_once);
  const std::int64_t wanted = rounds / kLeastRounds;
  deal.rounds =
      at_least_one(quotient_up(rounds, at_least_one(wanted < kMostChunks ? wanted : kMostChunks)));
  deal.chunks = at_least_one(quotient_up(rounds, deal.rounds));
  return deal;
}
static_assert(kMostDirectWindow + 1 <= kWeightThreads, "a thread for each place");

template <class T, int kOut>
struct DirectWeight {
  static constexpr int kThreads = kWeightThreads;
  // Pieces begin in different banks.
  static constexpr int kPiecePitch = kMostPiece * kOut + 4;
  struct Shared {
    alignas(16) float values[kMostAtOnce * kPiecePitch];  // gradients, in the end sums
  };
  struct Registers {
    int piece, sharer;    // of those at once; a piece beyond them: it has nothing to do
    bool is_bias;         // whose input is 1 everywhere
    int dy, dx, channel;  // of the input's pixel from the output's times the stride
    int begin, end;       // columns of the output whose input is inside
    float sum[kOut];
  };
  static_assert(kMostAtOnce * kPiecePitch >= kThreads * kOut, "sums find room");
  static_assert(kMostPiece * kOut % kThreads == 0, "a thread has the same channel of all pieces");

  ConvShape s;
  Deal deal;
  const T* input;
  const T* grad_output;
  float* sums;       // (chunk, weights)
  float* bias_sums;  // (chunk, output channel); null: none is wanted
  Divider across, out_height;

  PYCNN_BOTH void operator()(Block<DirectWeight>& block) const {
    float* const shared = block.shared().values;
    block.alone([&](int thread, Registers& own) { begin(thread, own); });
    for (int round = 0; round < deal.rounds; ++round) {
      const std::int64_t first = (block.index() * deal.rounds + round) * deal.at_once;
      if (first >= deal.pieces) break;
      const std::int64_t rest = deal.pieces - first;
      const int pieces = rest < deal.at_once ? static_cast<int>(rest) : deal.at_once;
      const auto from = static_cast<std::uint32_t>(first);
      block.each([&](int thread, Registers&) { copy_gradients(thread, from, pieces, shared); });
      block.each([&](int, Registers& own) {
        if (own.piece < pieces) add_products(own, from, shared);
      });
    }
    block.each([&](int thread, Registers& own) {
      PYCNN_UNROLL
      for (int oc = 0; oc < kOut; ++oc) shared[oc * kThreads + thread] = own.sum[oc];
    });
    block.last([&](int thread, Registers&) { leave(thread, block.index(), shared); });
  }

 private:
  struct Piece {
    int begin, pixels;  // columns of the output
    int y, image;
    std::int64_t first;  // output pixel
  };
  PYCNN_BOTH Piece piece_of(std::uint32_t index) const {
    Piece piece;
    std::uint32_t column = index, row = across.split(column);
    piece.begin = static_cast<int>(column) * deal.piece;
    piece.pixels = s.out_width - piece.begin < deal.piece ? s.out_width - piece.begin : deal.piece;
    piece.first = std::int64_t{row} * s.out_width + piece.begin;
    piece.image = static_cast<int>(out_height.split(row));
    piece.y = static_cast<int>(row);
    return piece;
  }

  PYCNN_BOTH void begin(int thread, Registers& own) const {
    PYCNN_UNROLL
    for (int oc = 0; oc < kOut; ++oc) own.sum[oc] = 0.0f;
    const int place = thread % deal.places, lane = thread / deal.places;
    own.piece = lane / deal.sharers < deal.at_once ? lane / deal.sharers : kThreads;
    own.sharer = lane % deal.sharers;
    own.is_bias = place == deal.places - 1;
    own.dy = own.dx = own.channel = own.begin = 0;
    own.end = s.out_width;
    if (own.is_bias) return;
    const int tap = place / s.in_channels;
    own.channel = place % s.in_channels;
    own.dy = tap / s.kernel_width * s.dilation_y - s.top;
    own.dx = tap % s.kernel_width * s.dilation_x - s.left;
    if (own.dx < 0) own.begin = (s.stride_x - 1 - own.dx) / s.stride_x;
    const std::int64_t last = std::int64_t{s.width} - 1 - own.dx;
    const std::int64_t end = last < 0 ? 0 : last / s.stride_x + 1;
    if (end < own.end) own.end = static_cast<int>(end);
  }

  // As float32 by (piece, pixel, channel); what there is not is never read.
  PYCNN_BOTH void copy_gradients(int thread, std::uint32_t first, int pieces, float* shared) const {
    constexpr int kAtOnce = 4, kStep = kThreads / kOut;
    const int channel = thread % kOut;
    if (channel >= s.out_channels) return;
    PYCNN_UNROLL
    for (int pixel = thread / kOut; pixel < kMostPiece; pixel += kStep)
      for (int which = 0; which < pieces; which += kAtOnce) {
        float values[kAtOnce];
        PYCNN_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          values[i] = 0.0f;
          if (which + i >= pieces) continue;
          const Piece piece = piece_of(first + static_cast<std::uint32_t>(which + i));
          if (pixel < piece.pixels)
            values[i] = widened(grad_output[(piece.first + pixel) * s.output_pitch() + channel]);
        }
        PYCNN_UNROLL
        for (int i = 0; i < kAtOnce; ++i)
          if (which + i < pieces)
            shared[(which + i) * kPiecePitch + pixel * kOut + channel] = values[i];
      }
  }

  // Of the thread's piece, in the order of its pixels.
  PYCNN_BOTH void add_products(Registers& own, std::uint32_t first, const float* shared) const {
    const Piece piece = piece_of(first + static_cast<std::uint32_t>(own.piece));
    const int y = piece.y * s.stride_y + own.dy;
    if (!own.is_bias && static_cast<unsigned>(y) >= static_cast<unsigned>(s.height)) return;
    int pixel = own.begin > piece.begin ? own.begin - piece.begin : 0;
    const int end = own.end - piece.begin < piece.pixels ? own.end - piece.begin : piece.pixels;
    pixel += own.sharer;
    const float* const gradients = shared + own.piece * kPiecePitch;
    const std::int64_t pitch = s.input_pitch();
    const std::int64_t row = (std::int64_t{piece.image} * s.height + y) * s.width;
    std::int64_t from =
        (row + (std::int64_t{piece.begin} + pixel) * s.stride_x + own.dx) * pitch + own.channel;
    const std::int64_t step = pitch * s.stride_x * deal.sharers;
    constexpr int kAtOnce = 4;
    for (; pixel + (kAtOnce - 1) * deal.sharers < end; pixel += kAtOnce * deal.sharers) {
      float values[kAtOnce];
      PYCNN_UNROLL
      for (int i = 0; i < kAtOnce; ++i, from += step) values[i] = value_of(own, from);
      PYCNN_UNROLL
      for (int i = 0; i < kAtOnce; ++i)
        add(own, values[i], gradients + (pixel + i * deal.sharers) * kOut);
    }
    for (; pixel < end; pixel += deal.sharers, from += step)
      add(own, value_of(own, from), gradients + pixel * kOut);
  }
  PYCNN_BOTH float value_of(const Registers& own, std::int64_t at) const {
    return own.is_bias ? 1.0f : widened(input[at]);
  }
  PYCNN_BOTH static void add(Registers& own, float value, const float* gradients) {
    PYCNN_UNROLL
    for (int begin = 0; begin < kOut; begin += 4) {
      const auto four = *reinterpret_cast<const Pack<float, 4>*>(gradients + begin);
      PYCNN_UNROLL
      for (int i = 0; i < 4; ++i) own.sum[begin + i] += value * four.element[i];
    }
  }

  // The sums of the threads that have the same place, in their order.
  PYCNN_BOTH void leave(int thread, std::int64_t chunk, const float* shared) const {
    const int window = deal.places - 1, lanes = deal.at_once * deal.sharers;
    for (int i = thread; i < deal.places * s.out_channels; i += kThreads) {
      const int place = i % deal.places, oc = i / deal.places;
      float sum = 0.0f;
      for (int lane = 0; lane < lanes; ++lane)
        sum += shared[oc * kThreads + lane * deal.places + place];
      if (place < window)
        sums[chunk * s.weights() + oc * window + place] = sum;
      else if (bias_sums != nullptr)
        bias_sums[chunk * s.out_channels + oc] = sum;
    }
  }
};

template <class T, int kOut>
void launch_direct_weight(DeviceQueue& queue, const ConvShape& shape, const void* input,
                          const void* grad_output, float* sums, float* bias_sums) {
  const ConvShape rows = as_rows(shape);
  const Deal deal = deal_of(rows);
  const DirectWeight<T, kOut> kernel{
      rows, deal,      static_cast<const T*>(input), static_cast<const T*>(grad_output),
      sums, bias_sums, Divider(deal.across),         Divider(at_least_one(rows.out_height))};
  launch(queue, kernel, deal.chunks);
}

int computed_channels(const ConvShape& shape) {
  return shape.out_channels <= kMostDirectOut / 2 ? kMostDirectOut / 2 : kMostDirectOut;
}

}  // namespace

std::int64_t conv2d_direct_weight_work(const ConvShape& shape) {
  const Deal deal = deal_of(as_rows(shape));
  return std::int64_t{computed_channels(shape)} * kWeightThreads * kMostPiece /
         (deal.at_once * deal.sharers * deal.piece);
}

std::int64_t conv2d_direct_weight_chunks(const ConvShape& shape) {
  return deal_of(as_rows(shape)).chunks;
}

void conv2d_direct_weight(DeviceQueue& queue, Image image, const ConvShape& shape,
                          const void* input, const void* grad_output, float* sums,
                          float* bias_sums) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    if (computed_channels(shape) == kMostDirectOut)
      launch_direct_weight<T, kMostDirectOut>(queue, shape, input, grad_output, sums, bias_sums);
    else
      launch_direct_weight<T, kMostDirectOut / 2>(queue, shape, input, grad_output, sums,
                                                  bias_sums);
  });
}

}  // namespace pycnn::cuda
