// The GPU's kernels; their order is in kernels.cpp.
#pragma once

#include "../core/kernel.h"

namespace dilconv {

extern const Kernel kCudaDepthwise;
extern const Kernel kCudaReference;
extern const Kernel kCudaSimt;
extern const Kernel kCudaTensorCores;
extern const Kernel kCudaTf32;

}  // namespace dilconv
