// Plans the winograd kernel, and tells when it pays.
#pragma once

#include "../../core/problem.h"
#include "plan.h"

namespace dilconv {

struct WinogradChoice {
  int64_t form;  // of WinogradForms, the one expected to be fastest; -1 if there is none
  double gain;   // how many times as fast as the direct kernel it is expected to be
};

bool has_winograd_form(const ConvProblem& problem);
WinogradChoice choose_winograd_form(const ConvProblem& problem);

// vector_bytes: the instruction set's; element_bytes: of the type that sums are kept in.
WinogradPlan plan_winograd(const ConvProblem& problem, int vector_bytes, int element_bytes);

}  // namespace dilconv
