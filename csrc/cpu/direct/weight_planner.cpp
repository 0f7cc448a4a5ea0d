#include <algorithm>
#include <cmath>
#include <utility>

#include "planner.h"

namespace dilconv {

struct Summation {
  bool pixels_in_vectors, swapped;
  double cost;
};

namespace {

// Whether grad_weight multiplies fewer vectors with x and y in each other's place: those of output
// channels may be emptier than those of input channels. Packing a vector costs some products.
bool gains_by_swapping(const ConvProblem& p, int64_t lanes) {
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  const int64_t taps = p.kernel[0] * p.kernel[1], packing = p.y_strides[1] == 1 ? 4 : 12;
  const int64_t as_is =
      (taps * in + packing) * divide_up(out, lanes) * p.out_size[0] * p.out_size[1];
  const int64_t swapped =
      (taps * out + packing) * divide_up(in, lanes) * p.in_size[0] * p.in_size[1];
  return p.stride[0] == 1 && p.stride[1] == 1 && 5 * swapped <= 4 * as_is;
}

// The same sums of a grad_weight of stride 1 with x and y in each other's place: position h of x
// meets position h - a * dilation + pad of y, as if y were read by a kernel that is mirrored.
ConvProblem swap_operands(const ConvProblem& p) {
  ConvProblem result = p;
  std::swap(result.in_channels, result.out_channels);
  std::swap(result.x_strides, result.y_strides);
  std::swap(result.w_strides[0], result.w_strides[1]);
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t reach = p.dilation[axis] * (p.kernel[axis] - 1);
    std::swap(result.in_size[axis], result.out_size[axis]);
    result.pad_before[axis] = reach - p.pad_before[axis];
    result.pad_after[axis] = reach - p.pad_after[axis];
    result.w_strides[2 + axis] = -p.w_strides[2 + axis];
  }
  return result;
}

// Chunks of pixels that are summed up in vectors of them: enough vectors for each sum that is
// loaded and stored, few enough for what is read to stay in the first-level cache.
struct PixelChunks {
  PixelChunks(const ConvProblem& p, int64_t lanes) {
    constexpr int64_t kVectors = 40, kMostColumns = 32;  // vectors of a chunk, and of its rows
    column_chunks = std::max<int64_t>(1, divide_up(p.out_size[1], kMostColumns * lanes));
    columns = divide_up(p.out_size[1], column_chunks);
    if (column_chunks > 1) columns = round_up(columns, lanes);
    vectors = std::max<int64_t>(1, divide_up(columns, lanes));
    rows = std::clamp<int64_t>(kVectors / vectors, 1, kChunkPixels);
    const int64_t reach = (p.kernel[0] - 1) * p.dilation[0] + 1 - p.stride[0];
    const int64_t samples = 2 + (rows - 1) / std::max<int64_t>(1, p.out_size[0]);
    const int64_t shared = rows * p.stride[0] + samples * std::max<int64_t>(0, reach);
    taps_share_rows = shared <= p.kernel[0] * rows;
    window_rows = taps_share_rows ? shared : p.kernel[0] * rows;
    pitch = vectors * lanes + (p.kernel[1] - 1) * p.dilation[1] / p.stride[1];
  }

  int64_t column_chunks, columns, vectors, rows;
  bool taps_share_rows;
  int64_t window_rows, pitch;  // of x's copy
};

// With output channels in vectors: y may be packed, and so is what taps near the edges read of x.
double channels_cost(const ConvProblem& p, int64_t lanes, bool packs) {
  const double in = double(p.in_channels / p.groups), out = double(p.out_channels / p.groups);
  const bool channels_last = p.y_strides[1] == 1;
  const double outputs = double(p.out_size[0] * p.out_size[1]);
  const double products = double(count_products(p, 0) * count_products(p, 1));
  const double packing = packs ? outputs * (channels_last ? 20 : 6) : 0;
  const double edges = (outputs * double(p.kernel[0] * p.kernel[1]) - products) *
                       (channels_last ? 40 : 16) / double(lanes);
  const auto cost = [&](double rows, double channels) {
    const double vectors = std::ceil(channels / double(lanes));
    return is_16_bit_floating(p) ? products * rows * vectors
                                 : (products * rows + packing) * vectors + edges * rows;
  };
  return std::min(cost(in, out), cost(out, in));
}

// With pixels in vectors: planes are copied, a row of a channel after the other.
double pixels_cost(const ConvProblem& p, int64_t lanes) {
  constexpr double kCopiedRow = 24;  // and for each vector of pixels:
  constexpr double kTurned = 6, kDense = 3;
  const double in = double(p.in_channels / p.groups), out = double(p.out_channels / p.groups);
  const PixelChunks chunks(p, lanes);
  const double count = double(p.out_size[0]) / double(chunks.rows) * double(chunks.column_chunks);
  const double sums = double(p.kernel[1]) * in * out;  // of a kernel row
  // A vector of x is loaded for each one of y's that it is multiplied by, at most three.
  const double products = double(count_products(p, 0) * chunks.vectors * chunks.column_chunks) *
                          sums * (out == 1 ? 2 : 1);
  const double passing = 2 * count * double(p.kernel[0]) * sums;
  const double x_rows = count * double(chunks.window_rows * p.stride[1]) * in;
  const double y_rows = double(p.out_size[0] * chunks.column_chunks) * out;
  const double copied = (x_rows * double(chunks.pitch) + y_rows * double(chunks.columns)) /
                        double(lanes) * (p.y_strides[1] == 1 ? kTurned : kDense);
  return products + passing + kCopiedRow * (x_rows + y_rows) + copied;
}

// Whether what is copied and summed up stays in the second-level cache.
bool takes_pixels(const ConvProblem& p, int64_t lanes, int64_t element_bytes) {
  constexpr int64_t kCacheBytes = 393216;
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  const PixelChunks chunks(p, lanes);
  const int64_t elements = chunks.window_rows * chunks.pitch * p.stride[1] * in +
                           chunks.rows * chunks.vectors * lanes * out +
                           p.kernel[0] * p.kernel[1] * in * out * lanes;
  return p.stride[1] <= kMostPhases && elements * element_bytes <= kCacheBytes;
}

// The cheapest way with pixels in vectors, if there is one.
Summation choose_pixels(const ConvProblem& p, int64_t lanes, int64_t element_bytes) {
  Summation best = {false, false, 0};
  for (const bool swapped : {false, true}) {
    if (swapped && (p.stride[0] != 1 || p.stride[1] != 1)) continue;
    const ConvProblem ordered = swapped ? swap_operands(p) : p;
    if (!takes_pixels(ordered, lanes, element_bytes)) continue;
    const double cost = pixels_cost(ordered, lanes);
    if (!best.pixels_in_vectors || cost < best.cost) best = {true, swapped, cost};
  }
  return best;
}

Summation choose_summation(const ConvProblem& p, int64_t lanes, int64_t element_bytes) {
  constexpr double kMargin = 1.1;
  const bool in_place = p.y_strides[1] == 1 && p.out_channels / p.groups % lanes == 0;
  const Summation pixels = choose_pixels(p, lanes, element_bytes);
  if (pixels.pixels_in_vectors && kMargin * pixels.cost < channels_cost(p, lanes, !in_place))
    return pixels;
  return {false, gains_by_swapping(p, lanes), 0};
}

}  // namespace

double weight_cost(const ConvProblem& problem, int64_t lanes, int64_t element_bytes) {
  const double channels = channels_cost(problem, lanes, true);
  const Summation pixels = choose_pixels(problem, lanes, element_bytes);
  return pixels.pixels_in_vectors ? std::min(channels, pixels.cost) : channels;
}

OwnedWeightPlan::OwnedWeightPlan(const ConvProblem& problem, int vector_bytes, int element_bytes)
    : OwnedWeightPlan(
          problem, vector_bytes / element_bytes,
          choose_summation(flattened(problem), vector_bytes / element_bytes, element_bytes)) {}

OwnedWeightPlan::OwnedWeightPlan(const ConvProblem& problem, int64_t lanes, const Summation& chosen)
    : swapped(chosen.swapped), problem_(flattened(swapped ? swap_operands(problem) : problem)) {
  constexpr int64_t kTasks = 64;                      // enough for many cores, few enough to reduce
  constexpr int64_t kPartialSums = int64_t(1) << 19;  // elements of all partial sums together
  const ConvProblem& p = problem_;
  plan.problem = &p;
  plan.weight_first = 0;
  for (int axis = 0; axis < 2 && swapped; ++axis)
    plan.weight_first += (problem.kernel[axis] - 1) * problem.w_strides[2 + axis];
  plan.weight_group_stride = problem.out_channels / problem.groups * problem.w_strides[0];
  plan.in_channels = p.in_channels / p.groups;
  plan.out_channels = p.out_channels / p.groups;
  plan.rows = p.kernel[0] * p.kernel[1] * plan.in_channels;
  plan.padded_channels = round_up(plan.out_channels, lanes);
  plan.pixels_in_vectors = chosen.pixels_in_vectors;
  if (plan.pixels_in_vectors) {
    const PixelChunks chunks(p, lanes);
    plan.column_chunks = chunks.column_chunks;
    plan.chunk_columns = chunks.columns;
    plan.chunk_rows = chunks.rows;
    plan.taps_share_rows = chunks.taps_share_rows;
    plan.window_rows = chunks.window_rows;
  } else {
    plan.column_chunks = std::max<int64_t>(1, divide_up(p.out_size[1], kChunkPixels));
    plan.chunk_columns = divide_up(p.out_size[1], plan.column_chunks);
    // Whole vectors, for squares that do not overlap.
    if (plan.column_chunks > 1) plan.chunk_columns = round_up(plan.chunk_columns, lanes);
    plan.chunk_rows = std::max<int64_t>(1, kChunkPixels / std::max<int64_t>(1, plan.chunk_columns));
  }
  plan.row_chunks = divide_up(p.batch * p.out_size[0], plan.chunk_rows);
  plan.channel_tasks = divide_up(plan.out_channels, 256);
  // Few, as each packs the vectors of its chunks anew.
  const int64_t row_units =
      plan.pixels_in_vectors ? 1 : std::clamp<int64_t>(plan.rows / 64, 1, kTasks);
  plan.row_tasks = divide_up(row_units, 2);
  const int64_t sums = std::max<int64_t>(1, plan.rows * plan.padded_channels * p.groups);
  const int64_t wanted = kTasks / (row_units * plan.channel_tasks * p.groups);
  // Sums that are vectors take about a fifth of a chunk's time to clear and to add up.
  const int64_t chunks = plan.row_chunks * plan.column_chunks / (plan.pixels_in_vectors ? 3 : 1);
  const int64_t affordable = std::max<int64_t>(1, std::min(chunks, kPartialSums / sums));
  plan.splits = std::clamp<int64_t>(wanted, 1, affordable);
  for (int axis = 0; axis < 2; ++axis) valid_[axis] = valid_taps(p, axis);
  plan.valid_h = valid_[0].data();
  plan.valid_w = valid_[1].data();
}

}  // namespace dilconv
