#include "planner.h"

#include <algorithm>

namespace dilconv {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kTaskChannels = 256;  // written channels of one task, at most

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

}  // namespace

OwnedMatrixGatherPlan::OwnedMatrixGatherPlan(const ConvProblem& problem, const MatrixShape& shape) {
  const ConvProblem p = flattened(problem);
  set_roles(plan, p);
  plan.vectors = VectorsHold::kWrittenChannels;
  // A piece costs little more than the last register tile, which it may not fill.
  constexpr int64_t kOverhead = 2;
  regions_ = cut_regions(p, kOverhead, kOverhead);
  plan.regions = regions_.data();
  plan.region_count = regions_.size();
  int64_t pixels = 0;
  for (int64_t r = 0; r < plan.region_count; ++r)
    pixels += plan.regions[r].h.count * plan.regions[r].w.count;
  plan.samples = choose_samples(plan, pixels, 3 * kLanes, 2);
  plan.panel_depth = shape.depth;
  plan.block_pixels = std::min(shape.block_pixels, round_up(pixels * plan.samples, kLanes));
  plan.split_channels = std::min(kTaskChannels, round_up(plan.written_channels, kLanes));
}

OwnedMatrixWeightPlan::OwnedMatrixWeightPlan(const ConvProblem& p, const MatrixShape& shape) {
  constexpr int64_t kTasks = 32;                      // enough for many cores, few enough to reduce
  constexpr int64_t kPartialSums = int64_t(1) << 18;  // elements of all partial sums together
  plan.problem = &p;
  plan.in_channels = p.in_channels / p.groups;
  plan.out_channels = p.out_channels / p.groups;
  // Whichever needs no transposing, unless few channels would leave most of the vectors empty.
  const int64_t unit = shape.row_unit, in = plan.in_channels, out = plan.out_channels;
  const int64_t x_rows = round_up(in, unit) * round_up(out, kLanes);
  const int64_t y_rows = round_up(out, unit) * round_up(in, kLanes);
  plan.x_in_rows = p.x_strides[1] == 1 ? 2 * x_rows < y_rows : x_rows <= 2 * y_rows;
  plan.column_chunks = std::max<int64_t>(1, divide_up(p.out_size[1], shape.depth));
  plan.chunk_columns = round_up(divide_up(p.out_size[1], plan.column_chunks), 2);
  plan.pitch = std::max<int64_t>(2, plan.chunk_columns);
  if (plan.column_chunks == 1) plan.chunk_columns = p.out_size[1];
  plan.chunk_rows = std::max<int64_t>(1, shape.depth / plan.pitch);
  plan.row_chunks = divide_up(p.batch * p.out_size[0], plan.chunk_rows);
  plan.task_channels = std::min(kTaskChannels, round_up(plan.out_channels, kLanes));
  const int64_t y_tasks = divide_up(plan.out_channels, plan.task_channels);
  const int64_t taps = p.kernel[0] * p.kernel[1];
  plan.x_tasks = std::clamp<int64_t>(taps * plan.in_channels / 512, 1, kTasks);
  const int64_t sums = std::max<int64_t>(1, taps * p.groups * round_up(plan.in_channels, kLanes) *
                                                round_up(plan.out_channels, kLanes));
  const int64_t wanted = kTasks / (plan.x_tasks * y_tasks * p.groups);
  const int64_t affordable =
      std::max<int64_t>(1, std::min(plan.row_chunks * plan.column_chunks, kPartialSums / sums));
  plan.splits = std::clamp<int64_t>(wanted, 1, affordable);
  for (int axis = 0; axis < 2; ++axis) valid_[axis] = valid_taps(p, axis);
  plan.valid_h = valid_[0].data();
  plan.valid_w = valid_[1].data();
}

}  // namespace dilconv
