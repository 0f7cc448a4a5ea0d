#include "planner.h"

#include <algorithm>

namespace dilconv {
namespace {

constexpr int64_t kTaps = 3;
// Transformed weights, or their gradients, may take half a megabyte more than the weights.
constexpr int64_t kMoreBytes = 524288;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

bool gathers_from_y(const ConvProblem& p) { return p.op == DILCONV_GRAD_INPUT; }

WinogradAxis plan_axis(const ConvProblem& p, int axis, int64_t tile) {
  constexpr int64_t kMostPhases = 32;
  const bool swapped = gathers_from_y(p);
  WinogradAxis plan;
  plan.read_size = swapped ? p.out_size[axis] : p.in_size[axis];
  plan.written_size = swapped ? p.in_size[axis] : p.out_size[axis];
  plan.dilation = p.dilation[axis];
  // grad_input reads the taps in reverse: its first one is the last.
  plan.origin = swapped ? p.pad_before[axis] - (kTaps - 1) * plan.dilation : -p.pad_before[axis];
  plan.tiles = divide_up(divide_up(plan.written_size, plan.dilation), tile);
  plan.phase_block = std::min(plan.dilation, kMostPhases);
  plan.tile_block =
      std::max<int64_t>(1, plan.dilation > kMostPhases ? 1 : kWinogradTiles / plan.dilation);
  return plan;
}

// Tiles of all phases of an axis.
int64_t count_tiles(const WinogradAxis& axis, int64_t tile) {
  const int64_t whole = (axis.tiles - 1) * axis.dilation;
  return whole + std::min(axis.dilation, axis.written_size - tile * whole);
}

// Products per pair of channels that the direct kernel cannot avoid, along an axis.
int64_t count_products(const ConvProblem& p, int axis) {
  int64_t products = 0;
  for (int64_t k = 0; k < kTaps; ++k) {
    const int64_t origin = k * p.dilation[axis] - p.pad_before[axis];
    const int64_t begin = std::max<int64_t>(0, -origin);
    const int64_t end = std::min(p.out_size[axis], p.in_size[axis] - origin);
    products += std::max<int64_t>(0, end - begin);
  }
  return products;
}

}  // namespace

WinogradPlan plan_winograd(const ConvProblem& p, int vector_bytes, int element_bytes) {
  const bool swapped = gathers_from_y(p);
  WinogradPlan plan;
  plan.tile = choose_winograd_tile(p).tile;
  plan.batch = p.batch;
  plan.groups = p.groups;
  plan.read_channels = (swapped ? p.out_channels : p.in_channels) / p.groups;
  plan.written_channels = (swapped ? p.in_channels : p.out_channels) / p.groups;
  std::copy_n(swapped ? p.y_strides : p.x_strides, 4, plan.read_strides);
  std::copy_n(swapped ? p.x_strides : p.y_strides, 4, plan.written_strides);
  for (int i = 0; i < 4; ++i) plan.weight_strides[i] = p.w_strides[i < 2 && swapped ? 1 - i : i];
  plan.weight_group_stride = p.out_channels / p.groups * p.w_strides[0];
  plan.flipped = swapped;
  plan.h = plan_axis(p, 0, plan.tile);
  plan.w = plan_axis(p, 1, plan.tile);

  const int64_t lanes = vector_bytes / element_bytes;
  const int64_t filter_bytes =
      (plan.tile + 2) * (plan.tile + 2) * plan.read_channels * element_bytes;
  const int64_t bytes =
      kTaps * kTaps * plan.read_channels * plan.written_channels * element_bytes + kMoreBytes;
  plan.sums_bytes = bytes;
  plan.pass_vectors =
      std::clamp<int64_t>(bytes / std::max<int64_t>(1, filter_bytes * lanes), 1,
                          std::max<int64_t>(1, divide_up(plan.written_channels, lanes)));
  return plan;
}

WinogradChoice choose_winograd_tile(const ConvProblem& p) {
  // In products of the direct kernel, measured: per tile and channel, the transforms of data and
  // results; per pair of channels, that of a filter.
  struct Cost {
    int64_t tile;
    double data, result, filter;
  };
  constexpr Cost kCosts[] = {{2, 200, 100, 60}, {3, 350, 200, 90}, {4, 500, 300, 120}};
  const bool swapped = gathers_from_y(p);
  const int64_t in = p.in_channels / p.groups, out = p.out_channels / p.groups;
  const double read = double(swapped ? out : in), written = double(swapped ? in : out);
  const double read_vectors = double(round_up(swapped ? out : in, 16));
  const double written_vectors = double(round_up(swapped ? in : out, 16));
  // The direct kernel's vectors hold written channels on channels_last and for grad_weight.
  const bool channels_in_vectors = p.op == DILCONV_GRAD_WEIGHT || p.y_strides[1] == 1;
  constexpr double kEfficiency = 0.85;
  const double direct = double(count_products(p, 0) * count_products(p, 1)) * read *
                        (channels_in_vectors ? written_vectors : written) / kEfficiency;
  // Transformed weights that do not stay in the second-level cache are written and read back, which
  // decides where native products, of bfloat16, are nearly as fast. A batch would share that.
  constexpr double kFilterPassing = 2000, kCacheBytes = 1048576;
  const bool passes_filters = p.dtype == DILCONV_BFLOAT16 &&
                              double(kTaps * kTaps * 4) * read * written + kMoreBytes > kCacheBytes;
  const double passing = passes_filters ? kFilterPassing : 0;
  double best = 0;
  int64_t chosen = 0;
  for (const Cost& c : kCosts) {
    const double tiles = double(count_tiles(plan_axis(p, 0, c.tile), c.tile) *
                                count_tiles(plan_axis(p, 1, c.tile), c.tile));
    const double values = double((c.tile + 2) * (c.tile + 2));
    const double passes = std::max(1.0, values / 9 * std::min(1.0, read * written / 16384));
    const double cost = tiles * (values * read * written_vectors + passes * c.data * read_vectors +
                                 c.result * written_vectors) +
                        (c.filter + passing) * read * written_vectors;
    if (chosen == 0 || cost < best) {
      best = cost;
      chosen = c.tile;
    }
  }
  return {chosen, direct / best};
}

}  // namespace dilconv
