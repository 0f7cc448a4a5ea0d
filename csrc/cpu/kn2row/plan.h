// Plans of the kn2row kernel. Plain data, as direct/plan.h explains.
#pragma once

#include "../direct/plan.h"

namespace dilconv {

// conv2d of stride 1, and grad_input.
struct Kn2rowPlan {
  // Regions are one per residue of the written position modulo the stride, with every tap that
  // reaches it, and neighbours in a region read neighbours.
  GatherPlan tensors;
  // Vectors hold read pixels, which are contiguous in a row; else the products of a read pixel.
  bool pixels_in_vectors;
  // Written rows so far apart share no read row with those in between.
  int64_t row_step;
  // Taps read columns from the last to the first.
  bool reversed;
};

}  // namespace dilconv
