// The rows of the depthwise kernel, one input channel per group, where bandwidth and not arithmetic
// bounds it; and of its kin for groups of a few channels.
#include <algorithm>
#include <cstdlib>

#include "../direct/planner.h"
#include "../kernels.h"
#include "../matrix/planner.h"
#include "../tasks.h"

namespace dilconv {
namespace {

// Whether square_tiles.h runs it.
bool squares(const ConvProblem& p) {
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t positions = p.op == DILCONV_GRAD_INPUT ? p.in_size[axis] : p.out_size[axis];
    if (p.kernel[axis] != 3 || p.stride[axis] != 1 || positions < kSquarePhase * p.dilation[axis])
      return false;
  }
  return true;
}

// Whether packing rows with their margins, by phases of the stride, keeps them near their length.
bool rows_pack_well(const ConvProblem& p) {
  const int64_t margins =
      p.dilation[1] * (p.kernel[1] - 1) + std::abs(p.pad_before[1]) + std::abs(p.pad_after[1]);
  const int64_t affordable = 4 * (p.in_size[1] + p.out_size[1]) + 1024;
  return margins <= affordable && 16 * p.stride[1] <= affordable;
}

// The plan, and the regions that it points to.
struct OwnedPlan {
  OwnedPlan(const ConvProblem& p, int isa) : regions(whole_regions(p)) {
    const bool reads_x = p.op != DILCONV_GRAD_INPUT;
    plan.group = p.in_channels / p.groups;
    const int64_t multiplier = p.out_channels / p.in_channels;
    plan.batch = p.batch;
    plan.channels = reads_x ? p.out_channels : p.in_channels;
    plan.depth = reads_x ? 1 : multiplier;
    plan.divisor = reads_x ? multiplier : 1;
    for (int axis = 0; axis < 2; ++axis) {
      plan.read_size[axis] = reads_x ? p.in_size[axis] : p.out_size[axis];
      plan.written_size[axis] = reads_x ? p.out_size[axis] : p.in_size[axis];
      plan.kernel[axis] = p.kernel[axis];
      plan.weight_strides[1 + axis] = p.w_strides[2 + axis];
    }
    std::copy_n(reads_x ? p.x_strides : p.y_strides, 4, plan.read_strides);
    std::copy_n(reads_x ? p.y_strides : p.x_strides, 4, plan.written_strides);
    set_weight_strides(p);
    plan.regions = regions.data();
    plan.region_count = regions.size();
    const int64_t lanes = kernels_for(isa).vector_bytes / element_bytes(p);
    choose_form(p, lanes, p.dtype == DILCONV_BFLOAT16 && matrix_for(isa));
    set_tiles(p, lanes);
    set_splits(lanes);
    set_margins(lanes);
  }

  DepthwisePlan plan;
  OwnedRegions regions;

 private:
  void set_weight_strides(const ConvProblem& p) {
    const bool reads_x = p.op != DILCONV_GRAD_INPUT;
    if (plan.group == 1) {
      plan.weight_strides[0] = plan.lane_stride = plan.depth * p.w_strides[0];
      plan.mix_stride = p.w_strides[0];
      return;
    }
    plan.weight_strides[0] = plan.group * p.w_strides[0];
    plan.lane_stride = p.w_strides[reads_x ? 0 : 1];
    plan.mix_stride = p.w_strides[reads_x ? 1 : 0];
  }

  // native: bfloat16 is multiplied in pairs.
  void choose_form(const ConvProblem& p, int64_t lanes, bool native) {
    const bool channels_last = plan.read_strides[1] == 1 && plan.written_strides[1] == 1;
    plan.paired = native && channels_last && plan.group == 1 && p.in_channels == p.out_channels &&
                  plan.channels >= kPairedChannels && squares(p);
    const bool rows_dense = plan.read_strides[3] == 1 && plan.written_strides[3] == 1;
    const bool widened = is_16_bit_floating(p);
    const int64_t taps = p.kernel[0] * p.kernel[1];
    // Turning pixels and channels around costs as much as about twelve taps.
    const bool short_sums =
        p.op != DILCONV_GRAD_WEIGHT && taps <= 5 && plan.written_size[1] >= 8 * lanes;
    // Tiles of sums take whole vectors of a row.
    plan.squares = p.op != DILCONV_GRAD_WEIGHT && squares(p) && plan.written_size[1] >= lanes;
    const int64_t width = plan.written_size[1], filled = round_up(width, lanes);
    const bool full_rows = plan.squares && 8 * width >= 7 * filled;
    // 16-bit types are turned slowly, and of the weight's gradient neither tensor is turned then.
    constexpr int64_t kPlaneBytes = 1048576;  // the second-level cache's
    const int64_t positions = p.in_size[0] * p.in_size[1] + p.out_size[0] * p.out_size[1];
    const bool full_weight_rows = widened && p.op == DILCONV_GRAD_WEIGHT && p.stride[1] == 1 &&
                                  p.kernel[0] > 1 && width >= lanes &&
                                  (taps + 14) * width >= (taps + 4) * filled &&
                                  positions * element_bytes(p) <= kPlaneBytes;
    // 16-bit types are widened as they are loaded; but packed widened where each is loaded often,
    // or where that takes more than an instruction or two.
    const bool quick = p.dtype == DILCONV_BFLOAT16 || lanes >= 16;
    const int64_t affordable = plan.group == 1 ? 25 : 4;  // taps; those of groups share no loads
    const bool loads =
        !widened || plan.paired || (quick && p.op != DILCONV_GRAD_WEIGHT && taps <= affordable);
    if (channels_last && loads && p.in_channels == p.out_channels && plan.channels >= lanes)
      plan.form = DepthwiseForm::kInPlace;
    else if (rows_dense && plan.depth == 1 && plan.group == 1 && rows_pack_well(p) &&
             (2 * plan.channels <= lanes || short_sums || full_rows || full_weight_rows))
      plan.form = DepthwiseForm::kPlanes;
    else
      plan.form = DepthwiseForm::kBlocks;
  }

  // How many positions an axis reads at most for `written` ones.
  static int64_t reads(const ConvProblem& p, int axis, int64_t written) {
    const int64_t reach = p.dilation[axis] * (p.kernel[axis] - 1), step = p.stride[axis];
    if (p.op != DILCONV_GRAD_INPUT)
      return std::min(p.in_size[axis], (written - 1) * step + reach + 1);
    return std::min(p.out_size[axis], (written - 1 + reach) / step + 2);
  }

  // Tiles whose reads stay in the second-level cache; they are large beside the taps' reach, as
  // neighbours read that twice.
  void set_tiles(const ConvProblem& p, int64_t lanes) {
    constexpr int64_t kCacheBytes = 262144, kColumns = 512;
    const bool in_place = plan.form == DepthwiseForm::kInPlace;
    if (in_place && squares(p)) return set_square_tiles(p, lanes);
    const int64_t pixel_bytes = element_bytes(p) * (in_place ? 2 * plan.channels : lanes);
    for (int axis = 1; axis >= 0; --axis) {
      const int64_t whole = std::max<int64_t>(1, plan.written_size[axis]);
      const int64_t reach = reads(p, axis, 1);
      const int64_t step = p.op == DILCONV_GRAD_INPUT ? 1 : p.stride[axis];
      const int64_t target =
          axis == 1 ? kColumns : kCacheBytes / (pixel_bytes * plan.tile_reads[1] * step);
      const int64_t least_size = in_place ? 1 : std::max<int64_t>(1, reach / step);
      const int64_t size = std::min(whole, std::max(target, least_size));
      plan.tile[axis] = divide_up(whole, divide_up(whole, size));
      plan.tile_reads[axis] = std::max<int64_t>(1, reads(p, axis, plan.tile[axis]));
    }
  }

  // A few rows of each phase, and as many channels as let neighbouring tiles find in the cache what
  // they share.
  void set_square_tiles(const ConvProblem& p, int64_t lanes) {
    constexpr int64_t kCacheBytes = 786432, kColumns = 512, kRows = 4;
    const int64_t largest[] = {kRows * p.dilation[0], kColumns};
    int64_t positions[] = {1, 1};  // read, written
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t whole = plan.written_size[axis];
      plan.tile[axis] = std::min(whole, largest[axis]);
      plan.tile_reads[axis] = std::max<int64_t>(1, reads(p, axis, plan.tile[axis]));
      positions[0] *= plan.tile_reads[axis];
      positions[1] *= plan.tile[axis];
    }
    const int64_t bytes = element_bytes(p) * (positions[0] + positions[1]) * plan.channels;
    plan.channel_parts = std::min(divide_up(bytes, kCacheBytes), plan.channels / lanes);
  }

  void set_splits(int64_t lanes) {
    constexpr int64_t kTasks = 32, kPartialSums = int64_t(1) << 20;
    const int64_t units = plan.batch * divide_up(plan.written_size[0], plan.tile[0]) *
                          divide_up(plan.written_size[1], plan.tile[1]);
    const int64_t blocks = divide_up(plan.channels, lanes);
    const int64_t sums = plan.group * plan.kernel[0] * plan.kernel[1] * blocks * lanes;
    const int64_t wanted =
        plan.form == DepthwiseForm::kInPlace ? kTasks : divide_up(kTasks, blocks);
    plan.splits = std::max<int64_t>(1, std::min({units, wanted, kPartialSums / sums}));
  }

  void set_margins(int64_t lanes) {
    int64_t first = INT64_MAX, last = INT64_MIN, longest = 0;
    for (int64_t r = 0; r < plan.region_count; ++r) {
      const Span& span = plan.regions[r].w;
      longest = std::max(longest, span.count);
      for (int64_t b = 0; b < span.tap_count; ++b) {
        const int64_t origin = span.taps[b].origin, step = span.read_step;
        const int64_t m = (origin - (origin % step + step) % step) / step;
        first = std::min(first, m);
        last = std::max(last, m);
      }
    }
    plan.first = first == INT64_MAX ? 0 : first;
    plan.phase_length =
        round_up(first == INT64_MAX ? 0 : last - first, lanes) + round_up(longest, lanes);
  }
};

const char* refuses(const ConvProblem& p, int) {
  if (!is_floating(p)) return "depthwise runs floating types only";
  if (p.groups < 2 || p.in_channels != p.groups || p.out_channels == 0)
    return "depthwise needs at least two groups, with one input channel each";
  return nullptr;
}

// With many output channels a group is a small convolution of its own, and the other kernels fill
// vectors with these.
const char* declines(const ConvProblem& p, int isa) {
  constexpr int64_t kManyOutputs = 16, kLeastLanes = 8;
  const int64_t outputs = p.out_channels / p.groups;
  const int64_t lanes = kernels_for(isa).vector_bytes / element_bytes(p);
  const bool channels_last = p.x_strides[1] == 1 && p.y_strides[1] == 1;
  const bool native = p.dtype == DILCONV_BFLOAT16 && matrix_for(isa);
  const bool widens = is_16_bit_floating(p) && !native;
  const auto fill = [&](int64_t vector) {
    return outputs >= vector ? "a group's output channels fill vectors" : nullptr;
  };
  if (p.op == DILCONV_CONV2D)
    return channels_last || native ? fill(std::max(lanes, kLeastLanes)) : nullptr;
  if (p.op == DILCONV_GRAD_WEIGHT) return channels_last || !widens ? fill(kManyOutputs) : nullptr;
  const int64_t part = channels_last && is_16_bit_floating(p) ? 4 : 2;
  return outputs > 1 && part * p.groups < lanes ? "input channels would fill a part of a vector"
                                                : nullptr;
}

const char* refuses_groups(const ConvProblem& p, int isa) {
  if (!is_floating(p)) return "grouped runs floating types only";
  const int64_t group = p.in_channels / p.groups;
  const int64_t lanes = kernels_for(isa).vector_bytes / element_bytes(p);
  const bool fits = group >= 2 && 2 * group <= lanes && (group & (group - 1)) == 0;
  if (p.groups < 2 || p.in_channels != p.out_channels || !fits)
    return "grouped needs at least two groups of as many input as output channels: a power of two, "
           "from two to half of what a vector holds";
  return nullptr;
}

const char* declines_groups(const ConvProblem& p, int isa) {
  constexpr int kShortVector = 16;
  if (kernels_for(isa).vector_bytes <= kShortVector)
    return "permutations of short vectors take many instructions";
  if (p.op == DILCONV_GRAD_WEIGHT) return nullptr;
  const int64_t lanes = kernels_for(isa).vector_bytes / element_bytes(p);
  const bool channels_last = p.x_strides[1] == 1 && p.y_strides[1] == 1;
  const MatrixFunctions* matrix = p.dtype == DILCONV_BFLOAT16 ? matrix_for(isa) : nullptr;
  if (channels_last) {
    constexpr int64_t kLargeGroup = 8;
    return matrix && p.in_channels / p.groups >= kLargeGroup
               ? "native products of bfloat16 are faster"
               : nullptr;
  }
  constexpr int64_t kSmallPlane = 144;  // a tile has 48 of its pixels
  if (matrix && fits_planes(p, matrix->shape) && p.out_size[0] * p.out_size[1] > kSmallPlane)
    return "native products of bfloat16 are faster";
  const bool one_tap = p.kernel[0] * p.kernel[1] == 1;
  const bool empty_lanes = 4 * p.in_channels < 3 * round_up(p.in_channels, lanes);
  return !matrix && (one_tap || empty_lanes)
             ? "turning pixels and channels around would cost more than it saves"
             : nullptr;
}

const GatherFunctions<DepthwisePlan>& gather(const ConvProblem& p, const DepthwisePlan& plan,
                                             int isa) {
  return plan.paired ? matrix_for(isa)->paired_squares : kernels_for(isa).depthwise_gather[p.dtype];
}

const WeightFunctions<DepthwisePlan>& weight_gradient(const ConvProblem& p,
                                                      const DepthwisePlan& plan, int isa) {
  return plan.paired ? matrix_for(isa)->paired_weight : kernels_for(isa).depthwise_weight[p.dtype];
}

size_t workspace_bytes(const ConvProblem& problem, int threads, int isa) {
  if (writes_nothing(problem)) return 0;
  const OwnedPlan owned(problem, isa);
  const int workers = choose_workers(problem, threads);
  return problem.op == DILCONV_GRAD_WEIGHT
             ? weight_gradient(problem, owned.plan, isa).workspace_bytes(owned.plan, workers)
             : gather(problem, owned.plan, isa).workspace_bytes(owned.plan, workers);
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int isa) {
  if (writes_nothing(problem)) return;
  const OwnedPlan owned(problem, isa);
  const TaskPool pool = make_pool(problem, execution.threads);
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    weight_gradient(problem, owned.plan, isa)
        .run(owned.plan, tensors.x, tensors.y, tensors.w, tensors.workspace, pool);
    return;
  }
  const bool forward = problem.op == DILCONV_CONV2D;
  gather(problem, owned.plan, isa)
      .run(owned.plan, forward ? tensors.x : tensors.y, tensors.w, tensors.bias,
           forward ? tensors.y : tensors.x, tensors.workspace, pool);
}

}  // namespace

const Kernel kDepthwise = {"depthwise", refuses, declines, workspace_bytes, run};
const Kernel kGrouped = {"grouped", refuses_groups, declines_groups, workspace_bytes, run};

}  // namespace dilconv
