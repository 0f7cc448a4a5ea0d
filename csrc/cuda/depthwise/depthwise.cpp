// The row of the depthwise kernel: one input channel per group; bandwidth, not arithmetic, bounds
// it.
#include <algorithm>
#include <cstdlib>

#include "../kernels.h"
#include "forms.h"

namespace dilconv {
namespace {

using namespace cuda::depthwise;

bool channels_last(const ConvProblem& p) {
  return p.x_strides[1] == 1 && p.y_strides[1] == 1 && p.in_channels > 1;
}

// Positions within an image, with every margin, are 32-bit numbers.
bool positions_fit(const ConvProblem& p) {
  constexpr int64_t kLimit = int64_t(1) << 27;
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t numbers[] = {p.in_size[axis],
                               p.out_size[axis],
                               p.stride[axis] * p.dilation[axis],
                               p.kernel[axis] * p.dilation[axis],
                               std::abs(p.pad_before[axis]),
                               std::abs(p.pad_after[axis])};
    if (*std::max_element(std::begin(numbers), std::end(numbers)) >= kLimit) return false;
  }
  return true;
}

// Loops count a step past the last plane: at most a plane for each thread of plan.h's kBlocks.
bool images_fit(const ConvProblem& p) {
  constexpr int64_t kStep = int64_t(1) << 22, kMost = INT32_MAX - kStep;
  const int64_t in = p.in_size[0] * p.in_size[1], out = p.out_size[0] * p.out_size[1];
  return in <= INT32_MAX && out <= INT32_MAX && p.batch <= kMost &&
         p.batch * std::max(p.in_channels, p.out_channels) <= kMost &&
         (p.op != DILCONV_GRAD_WEIGHT || p.batch * out <= kMost);
}

// Offsets within an image's plane. Pixels have 64-bit ones, made from 32-bit strides.
bool offsets_fit(const ConvProblem& p) {
  if (channels_last(p)) {
    const int64_t strides[] = {p.x_strides[2], p.x_strides[3], p.y_strides[2], p.y_strides[3]};
    return std::all_of(std::begin(strides), std::end(strides),
                       [](int64_t stride) { return std::abs(stride) <= INT32_MAX; });
  }
  const auto extent = [](const int64_t (&strides)[4], const int64_t (&size)[2]) {
    return std::abs(strides[2]) * size[0] + std::abs(strides[3]) * size[1];
  };
  return extent(p.x_strides, p.in_size) <= INT32_MAX &&
         extent(p.y_strides, p.out_size) <= INT32_MAX;
}

const char* refuses(const ConvProblem& p, int) {
  constexpr int64_t kMostTaps = 4096;  // their weights fit into shared memory
  if (!is_floating(p)) return "depthwise runs floating types only";
  if (p.in_channels != p.groups || p.out_channels == 0)
    return "depthwise needs one input channel per group";
  if (p.kernel[0] > kMostTaps || p.kernel[0] * p.kernel[1] > kMostTaps)
    return "depthwise takes kernels of at most 4096 taps";
  if (!positions_fit(p)) return "depthwise counts positions, margins included, in 32 bits";
  if (!images_fit(p)) return "depthwise counts planes, and the pixels of each, in 32 bits";
  if (!offsets_fit(p)) return "depthwise counts offsets within an image's plane in 32 bits";
  return nullptr;
}

bool writes_nothing(const ConvProblem& p) {
  if (p.op == DILCONV_GRAD_WEIGHT) return false;
  const int64_t* const size = p.op == DILCONV_CONV2D ? p.out_size : p.in_size;
  return p.batch == 0 || size[0] == 0 || size[1] == 0;
}

size_t workspace_bytes(const ConvProblem& p, int, int) {
  if (p.op != DILCONV_GRAD_WEIGHT) return 0;
  return !channels_last(p) && planes_weight_fit(p) ? planes_weight_workspace(p)
                                                   : pixels_weight_workspace(p);
}

void run(const ConvProblem& p, const Tensors& tensors, const Execution& execution, int) {
  if (writes_nothing(p)) return;
  const bool planes = !channels_last(p);
  if (p.op == DILCONV_GRAD_WEIGHT)
    (planes && planes_weight_fit(p) ? run_planes_weight : run_pixels_weight)(p, tensors,
                                                                             execution.stream);
  else
    (planes && planes_fit(p) ? run_planes : run_pixels)(p, tensors, execution.stream);
}

}  // namespace

const Kernel kCudaDepthwise = {"depthwise", refuses, never_declines, workspace_bytes, run};

}  // namespace dilconv
