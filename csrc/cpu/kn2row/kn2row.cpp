// The row of the kn2row kernel: conv2d of stride 1 and grad_input, for few written channels.
#include <algorithm>
#include <cmath>

#include "../direct/planner.h"
#include "../kernels.h"
#include "../tasks.h"
#include "plan.h"

namespace dilconv {
namespace {

// The plan, and what it points to.
class OwnedKn2rowPlan {
 public:
  explicit OwnedKn2rowPlan(const ConvProblem& p) : regions_(whole_regions(p)) {
    set_roles(plan.tensors, p);
    plan.tensors.regions = regions_.data();
    plan.tensors.region_count = regions_.size();
    plan.pixels_in_vectors = plan.tensors.read_strides[3] == 1;
    plan.row_step = p.stride[0] > 1 || p.kernel[0] == 1 ? 1 : p.dilation[0];
    plan.reversed = p.op == DILCONV_GRAD_INPUT;
  }
  OwnedKn2rowPlan(const OwnedKn2rowPlan&) = delete;

  Kn2rowPlan plan;

 private:
  OwnedRegions regions_;
};

bool strided(const ConvProblem& p) { return p.stride[0] != 1 || p.stride[1] != 1; }

const char* refuses(const ConvProblem& p, int) {
  if (!is_floating(p)) return "kn2row runs floating types only";
  if (p.op == DILCONV_GRAD_WEIGHT) return "kn2row runs conv2d and grad_input only";
  const bool forward = p.op == DILCONV_CONV2D;
  if (forward && strided(p)) return "kn2row runs conv2d of stride 1 only";
  if ((forward ? p.in_channels : p.out_channels) == 0) return "kn2row needs channels to sum over";
  return nullptr;
}

// The part of the products with read pixels that is added to a written one.
double used(const ConvProblem& p) {
  double part = 1;
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t read = p.op == DILCONV_CONV2D ? p.in_size[axis] : p.out_size[axis];
    int64_t positions = 0;
    for (const Range& range : valid_taps(p, axis)) positions += range.end - range.begin;
    part *= double(positions) / double(std::max<int64_t>(1, read * p.kernel[axis]));
  }
  return part;
}

const MatrixFunctions* native_products(const ConvProblem& p, int isa) {
  return p.dtype == DILCONV_BFLOAT16 ? matrix_for(isa) : nullptr;
}

// The more channels are written, the better others fill their vectors; the more are summed over,
// the less it counts that every product is stored and added. The limits are where the one overtook
// the other among random layers: strided gradients are what others do worst.
double most_written(const ConvProblem& p, int64_t read, int isa) {
  const bool native = native_products(p, isa);
  const double most = native ? 6 : 8, share = std::sqrt(double(read));
  if ((p.op == DILCONV_CONV2D ? p.x_strides : p.y_strides)[3] != 1)
    return std::min(most, used(p) * (strided(p) || native ? 1.3 : 1) * share);
  // Rows of fewer pixels than a vector holds leave the rest of it empty.
  const double lanes = double(kernels_for(isa).vector_bytes / element_bytes(p));
  const double width = double(p.op == DILCONV_CONV2D ? p.in_size[1] : p.out_size[1]);
  const double factor = !strided(p) ? 0.7 : native ? 3 : 1.2;
  return std::min(most, std::min(1.0, width / lanes) * factor * share);
}

const char* declines(const ConvProblem& p, int isa) {
  constexpr int64_t kFewRead = 8;
  const bool forward = p.op == DILCONV_CONV2D;
  const MatrixFunctions* matrix = native_products(p, isa);
  if (matrix && !matrix->kn2row.run) return "tiles multiply bfloat16 faster";
  if (p.kernel[0] * p.kernel[1] == 1) return "there is one tap only";
  const int64_t read = (forward ? p.in_channels : p.out_channels) / p.groups;
  const int64_t written = (forward ? p.out_channels : p.in_channels) / p.groups;
  if (!matrix && read < kFewRead) return "so few products are not worth storing";
  return double(written) > most_written(p, read, isa)
             ? "others fill vectors with so many written channels"
             : nullptr;
}

const GatherFunctions<Kn2rowPlan>& functions(const ConvProblem& p, int isa) {
  const MatrixFunctions* matrix = native_products(p, isa);
  return matrix && matrix->kn2row.run ? matrix->kn2row : kernels_for(isa).kn2row[p.dtype];
}

size_t workspace_bytes(const ConvProblem& problem, int threads, int isa) {
  if (writes_nothing(problem)) return 0;
  const OwnedKn2rowPlan owned(problem);
  return functions(problem, isa).workspace_bytes(owned.plan, choose_workers(problem, threads));
}

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int isa) {
  if (writes_nothing(problem)) return;
  const TaskPool pool = make_pool(problem, execution.threads);
  const bool forward = problem.op == DILCONV_CONV2D;
  const OwnedKn2rowPlan owned(problem);
  functions(problem, isa)
      .run(owned.plan, forward ? tensors.x : tensors.y, tensors.w, tensors.bias,
           forward ? tensors.y : tensors.x, tensors.workspace, pool);
}

}  // namespace

const Kernel kKn2row = {"kn2row", refuses, declines, workspace_bytes, run};

}  // namespace dilconv
