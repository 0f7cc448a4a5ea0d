// Makes the matrix kernel's plans, and owns what they point to.
#pragma once

#include <vector>

#include "../direct/planner.h"
#include "plan.h"

namespace dilconv {

class OwnedMatrixGatherPlan {
 public:
  OwnedMatrixGatherPlan(const ConvProblem& problem, const MatrixShape& shape);
  OwnedMatrixGatherPlan(const OwnedMatrixGatherPlan&) = delete;

  MatrixGatherPlan plan;

 private:
  OwnedRegions regions_;
};

// Refers to the problem, which must outlive it.
class OwnedMatrixWeightPlan {
 public:
  OwnedMatrixWeightPlan(const ConvProblem& problem, const MatrixShape& shape);
  OwnedMatrixWeightPlan(const OwnedMatrixWeightPlan&) = delete;

  MatrixWeightPlan plan;

 private:
  std::vector<Range> valid_[2];
};

}  // namespace dilconv
