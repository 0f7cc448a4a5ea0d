// Makes the matrix kernel's plans, and owns what they point to.
#pragma once

#include <vector>

#include "../direct/planner.h"
#include "plan.h"

namespace dilconv {

// How many groups of a conv2d or grad_input are multiplied as one, so that their channels together
// fill the tiles that each would leave mostly empty: 1 if none are.
int64_t groups_to_join(const ConvProblem& problem, const MatrixShape& shape);

// Whether that leaves other kernels behind: it does not for a few taps, beside which copying
// counts.
bool joins_well(const ConvProblem& problem, const MatrixShape& shape);

// Whether kernels are small beside the image: else most of what their taps read may be padding.
bool mostly_inside(const ConvProblem& problem);

// Whether planes.h can run the problem, and does not read padding mostly.
bool fits_planes(const ConvProblem& problem, const MatrixShape& shape);

class OwnedMatrixGatherPlan {
 public:
  OwnedMatrixGatherPlan(const ConvProblem& problem, const MatrixShape& shape);
  OwnedMatrixGatherPlan(const OwnedMatrixGatherPlan&) = delete;

  MatrixGatherPlan plan;

 private:
  void consider_planes(const ConvProblem& problem, const MatrixShape& shape, double cost);

  OwnedRegions regions_, whole_;
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
