// Makes the direct kernel's plans, and owns what they point to.
#pragma once

#include <vector>

#include "../../core/problem.h"
#include "plan.h"

namespace dilconv {

// vector_bytes: the instruction set's; element_bytes: of the type that sums are kept in.
class OwnedGatherPlan {
 public:
  OwnedGatherPlan(const ConvProblem& problem, int vector_bytes, int element_bytes);
  OwnedGatherPlan(const OwnedGatherPlan&) = delete;

  GatherPlan plan;

 private:
  std::vector<Region> regions_;
  std::vector<Tap> taps_h_, taps_w_;
};

// Refers to the problem, which must outlive it.
class OwnedWeightPlan {
 public:
  OwnedWeightPlan(const ConvProblem& problem, int vector_bytes, int element_bytes);
  OwnedWeightPlan(const OwnedWeightPlan&) = delete;

  WeightPlan plan;

 private:
  std::vector<Range> valid_[2];
};

}  // namespace dilconv
