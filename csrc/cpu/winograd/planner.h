// Plans the winograd kernel, and tells when it pays.
#pragma once

#include "../../core/problem.h"
#include "plan.h"

namespace dilconv {

struct WinogradChoice {
  int64_t tile;  // 2, 3 or 4, whichever is expected to be faster
  double gain;   // how many times as fast as the direct kernel it is expected to be
};

WinogradChoice choose_winograd_tile(const ConvProblem& problem);

// vector_bytes: the instruction set's; element_bytes: of the type that sums are kept in.
WinogradPlan plan_winograd(const ConvProblem& problem, int vector_bytes, int element_bytes);

}  // namespace dilconv
