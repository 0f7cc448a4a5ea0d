// Makes the direct kernel's plans, and owns what they point to.
#pragma once

#include <vector>

#include "../../core/problem.h"
#include "../rounding.h"
#include "plan.h"

namespace dilconv {

// The spans of one axis; they point into `taps` by index until both axes are known.
struct AxisSpan {
  int64_t begin, step, count, read_step;
  size_t first_tap, tap_count;
  bool inside;  // every tap reads inside the image, as far as is known
};

struct AxisPlan {
  std::vector<AxisSpan> spans;
  std::vector<Tap> taps;
};

// Every span of one axis with every span of the other, and the taps that they point to.
class OwnedRegions {
 public:
  OwnedRegions() = default;
  OwnedRegions(AxisPlan h, AxisPlan w);
  OwnedRegions(OwnedRegions&&) = default;
  OwnedRegions& operator=(OwnedRegions&&) = default;

  const Region* data() const { return regions_.data(); }
  int64_t size() const { return int64_t(regions_.size()); }

 private:
  std::vector<Tap> taps_h_, taps_w_;
  std::vector<Region> regions_;
};

// The problem, a 1×1 convolution of dense planes as one of single rows.
ConvProblem flattened(const ConvProblem& problem);

// Sets sizes, strides and channels of a conv2d's or grad_input's plan.
void set_roles(GatherPlan& plan, const ConvProblem& problem);

// Cuts the plane where taps enter or leave the image, but not so finely that the pieces cost more
// than the zeros they avoid: along each axis, a piece of n positions and t taps is charged
// (n + overhead / 16) * t.
OwnedRegions cut_regions(const ConvProblem& problem, int64_t row_overhead, int64_t run_overhead);

// Per kernel element of an axis: the output positions whose tap reads inside the image.
std::vector<Range> valid_taps(const ConvProblem& problem, int axis);

// How many pairs of output positions and kernel elements of an axis read inside the image.
int64_t count_products(const ConvProblem& problem, int axis);

// conv2d's or grad_input's regions, one per residue, with every tap; for grad_weight, those of
// conv2d.
OwnedRegions whole_regions(const ConvProblem& problem);

// vector_bytes: the instruction set's; element_bytes: of the type that sums are kept in.
class OwnedGatherPlan {
 public:
  OwnedGatherPlan(const ConvProblem& problem, int vector_bytes, int element_bytes);
  OwnedGatherPlan(const OwnedGatherPlan&) = delete;

  GatherPlan plan;

 private:
  void set_regions(OwnedRegions regions);

  OwnedRegions regions_;
};

// grad_weight's time per sample and group, in multiply-adds of vectors of so many lanes.
double weight_cost(const ConvProblem& problem, int64_t lanes, int64_t element_bytes);

struct Summation;

class OwnedWeightPlan {
 public:
  OwnedWeightPlan(const ConvProblem& problem, int vector_bytes, int element_bytes);
  OwnedWeightPlan(const OwnedWeightPlan&) = delete;

  WeightPlan plan;
  const bool swapped;  // the plan's x is y, and its y is x

 private:
  OwnedWeightPlan(const ConvProblem& problem, int64_t lanes, const Summation& chosen);

  ConvProblem problem_;
  std::vector<Range> valid_[2];
};

}  // namespace dilconv
