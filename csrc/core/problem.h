// ConvProblem: everything a kernel needs to know about a convolution, except where its data is.
#pragma once

#include <string>

#include "dilconv.h"

namespace dilconv {

using ConvProblem = dilconv_problem;
using Tensors = dilconv_tensors;

inline bool is_floating(const ConvProblem& p) { return p.dtype <= DILCONV_BFLOAT16; }
inline bool is_16_bit_floating(const ConvProblem& p) {
  return p.dtype == DILCONV_FLOAT16 || p.dtype == DILCONV_BFLOAT16;
}

const char* op_name(int64_t op);
const char* dtype_name(int64_t dtype);
int64_t dtype_bytes(int64_t dtype);

// Why the problem contradicts itself, or an empty string.
std::string check_problem(const ConvProblem& problem);

// One line for logs: "conv2d float32 2x64x56x56 * 128x64x3x3 -> 2x128x52x52 dilation 2x2 ...".
std::string describe(const ConvProblem& problem);

}  // namespace dilconv
