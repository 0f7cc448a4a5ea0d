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

class OwnedMatrixWeightPlan {
 public:
  OwnedMatrixWeightPlan(const ConvProblem& problem, const MatrixShape& shape);
  OwnedMatrixWeightPlan(const OwnedMatrixWeightPlan&) = delete;

  MatrixWeightPlan plan;

 private:
  ConvProblem problem_;  // as the plan sees it
  std::vector<Range> rows_, columns_;
};

}  // namespace dilconv
