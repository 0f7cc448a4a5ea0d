// The parameters of grad_weight's kernels.
#include <algorithm>

#include "planner.h"
#include "sizes.h"

namespace dilconv::cuda {
namespace {

// As many parts as keep a large GPU busy, but not so many that adding them up counts; and no part
// so long that rounding errors grow. By the sizes alone, so that the result is always the same.
int choose_splits(const ConvProblem& p, const WeightParams& w) {
  constexpr int64_t kWantedBlocks = 512, kFewestPixels = 512, kMostPixels = 8192;
  constexpr int64_t kMostBytes = int64_t(32) << 20;
  const int64_t pixels = p.batch * p.out_size[0] * p.out_size[1];
  const int64_t blocks = std::max<int64_t>(1, int64_t(w.row_tiles) * w.column_tiles * w.groups);
  const int64_t wanted = std::max(divide_up(kWantedBlocks, blocks), divide_up(pixels, kMostPixels));
  const int64_t bytes = std::max<int64_t>(1, partial_elements(w) * 4);
  const int64_t most = std::min(pixels / kFewestPixels, kMostBytes / bytes);
  return int(std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, most)));
}

}  // namespace

int64_t partial_elements(const WeightParams& w) { return int64_t(w.groups) * w.rows * w.pitch; }

WeightParams make_grad_weight(const ConvProblem& p, const Tensors& t, const TileSize& tile) {
  WeightParams w = {};
  WeightOperand x = {}, y = {};
  x.image = make_image(p, t.x, p.x_strides, p.in_size, in_per_group(p));
  x.taps = {int(p.kernel[0]), int(p.kernel[1]), int(p.dilation[0]), int(p.dilation[1])};
  y.image = make_image(p, t.y, p.y_strides, p.out_size, out_per_group(p));
  y.taps = {1, 1, 0, 0};
  for (int axis = 0; axis < 2; ++axis) {
    x.origin[axis] = -int(p.pad_before[axis]);
    x.step[axis] = int(p.stride[axis]);
    y.step[axis] = 1;
    w.kernel[axis] = int(p.kernel[axis]);
    w.stride[axis] = int(p.stride[axis]);
    w.dilation[axis] = int(p.dilation[axis]);
    w.pad[axis] = int(p.pad_before[axis]);
    w.in_size[axis] = int(p.in_size[axis]);
    w.out_size[axis] = int(p.out_size[axis]);
  }
  w.padded_depths = x.image.padded_channels;
  w.batch = int(p.batch);
  w.groups = int(p.groups);
  const int64_t depths = kernel_size(p) * w.padded_depths, channels = out_per_group(p);
  const auto area = [&](int64_t rows, int64_t columns) {
    return round_up(rows, tile.rows) * round_up(columns, tile.columns);
  };
  w.taps_are_rows = area(depths, channels) < area(channels, depths);
  w.left = w.taps_are_rows ? x : y;
  w.right = w.taps_are_rows ? y : x;
  w.rows = int(w.taps_are_rows ? depths : channels);
  w.columns = int(w.taps_are_rows ? channels : depths);
  w.pitch = int(round_up(w.columns, 4));
  w.row_tiles = int(divide_up(w.rows, tile.rows));
  w.column_tiles = int(divide_up(w.columns, tile.columns));
  w.splits = choose_splits(p, w);
  w.partial = t.workspace;
  return w;
}

ReduceParams make_reduce(const ConvProblem& p, const Tensors& t, const WeightParams& w) {
  ReduceParams r;
  r.partial = w.partial;
  r.taps_are_rows = w.taps_are_rows;
  r.groups = w.groups;
  r.rows = w.rows;
  r.columns = w.columns;
  r.pitch = w.pitch;
  r.splits = w.splits;
  r.channels = int(out_per_group(p));
  r.depths = int(in_per_group(p));
  r.weight = t.w;
  r.channel = p.w_strides[0];
  r.depth = p.w_strides[1];
  r.row = p.w_strides[2];
  r.column = p.w_strides[3];
  return r;
}

}  // namespace dilconv::cuda
