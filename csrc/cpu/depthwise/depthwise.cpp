// The row of the depthwise kernel: one input and one output channel per group; bandwidth, not
// arithmetic, bounds it.
#include <algorithm>
#include <cstdlib>

#include "../direct/planner.h"
#include "../kernels.h"
#include "../tasks.h"

namespace dilconv {
namespace {

// The plan, and the regions that it points to.
struct OwnedPlan {
  OwnedPlan(const ConvProblem& p, const InstructionSet& isa) : regions(whole_regions(p)) {
    const bool reads_x = p.op != DILCONV_GRAD_INPUT;
    plan.batch = p.batch;
    plan.channels = p.groups;
    for (int axis = 0; axis < 2; ++axis) {
      plan.read_size[axis] = reads_x ? p.in_size[axis] : p.out_size[axis];
      plan.written_size[axis] = reads_x ? p.out_size[axis] : p.in_size[axis];
      plan.kernel[axis] = p.kernel[axis];
      plan.weight_strides[1 + axis] = p.w_strides[2 + axis];
    }
    plan.weight_strides[0] = p.w_strides[0];
    std::copy_n(reads_x ? p.x_strides : p.y_strides, 4, plan.read_strides);
    std::copy_n(reads_x ? p.y_strides : p.x_strides, 4, plan.written_strides);
    const int64_t lanes = isa.vector_bytes / element_bytes(p);
    plan.channels_last = p.x_strides[1] == 1 && p.y_strides[1] == 1 && plan.channels >= lanes;
    plan.regions = regions.data();
    plan.region_count = regions.size();
    set_margins(lanes);
  }

  DepthwisePlan plan;
  OwnedRegions regions;

 private:
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
        (first == INT64_MAX ? 0 : last - first) + (longest + lanes - 1) / lanes * lanes;
  }
};

const char* refuses(const ConvProblem& p) {
  if (!is_floating(p)) return "depthwise runs floating types only";
  if (p.groups < 2 || p.in_channels != p.groups || p.out_channels != p.groups)
    return "depthwise needs at least two groups, with one input and one output channel each";
  const int64_t margins =
      p.dilation[1] * (p.kernel[1] - 1) + std::abs(p.pad_before[1]) + std::abs(p.pad_after[1]);
  const int64_t affordable = 4 * (p.in_size[1] + p.out_size[1]) + 1024;
  if (margins > affordable || 16 * p.stride[1] > affordable)
    return "depthwise packs rows with their margins, by phases of the stride: these are much "
           "longer than the row";
  return nullptr;
}

size_t workspace_bytes(const ConvProblem& problem, int threads, int isa_index) {
  if (writes_nothing(problem)) return 0;
  const InstructionSet& isa = kernels_for(isa_index);
  const OwnedPlan owned(problem, isa);
  const int workers = choose_workers(problem, threads);
  return problem.op == DILCONV_GRAD_WEIGHT
             ? isa.depthwise_weight[problem.dtype].workspace_bytes(owned.plan, workers)
             : isa.depthwise_gather[problem.dtype].workspace_bytes(owned.plan, workers);
}

void run(const ConvProblem& problem, const Tensors& tensors, const Threads& threads,
         int isa_index) {
  if (writes_nothing(problem)) return;
  const InstructionSet& isa = kernels_for(isa_index);
  const OwnedPlan owned(problem, isa);
  const TaskPool pool = make_pool(problem, threads);
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    isa.depthwise_weight[problem.dtype].run(owned.plan, tensors.x, tensors.y, tensors.w,
                                            tensors.workspace, pool);
    return;
  }
  const bool forward = problem.op == DILCONV_CONV2D;
  isa.depthwise_gather[problem.dtype].run(owned.plan, forward ? tensors.x : tensors.y, tensors.w,
                                          tensors.bias, forward ? tensors.y : tensors.x,
                                          tensors.workspace, pool);
}

}  // namespace

const Kernel kDepthwise = {"depthwise", refuses, never_declines, workspace_bytes, run};

}  // namespace dilconv
