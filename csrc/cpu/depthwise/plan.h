// The plan of the depthwise kernel: where each tap reads. Plain data, as direct/plan.h explains.
#pragma once

#include "../direct/plan.h"

namespace dilconv {

// One input and one output channel per group. For conv2d and grad_input, regions as in a
// GatherPlan, but never cut: one per residue of the position modulo grad_input's stride. For
// grad_weight, the one region of conv2d.
struct DepthwisePlan {
  int64_t batch, channels;
  int64_t read_size[2], written_size[2], kernel[2];
  int64_t read_strides[4], written_strides[4];
  int64_t weight_strides[3];  // channel, kernel height, kernel width
  bool channels_last;
  const Region* regions;
  int64_t region_count;
  // Rows of a plane are packed with margins, and with every read_step-th element together, so that
  // a vector of any tap lies inside: element read_step * m + phase is at phase * phase_length + m -
  // first.
  int64_t first, phase_length;
};

}  // namespace dilconv
