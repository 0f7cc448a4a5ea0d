// The CPU's kernels; their order is in kernels.cpp.
#pragma once

#include "../core/kernel.h"

namespace dilconv {

extern const Kernel kDepthwise;
extern const Kernel kDirect;
extern const Kernel kGrouped;
extern const Kernel kKn2row;
extern const Kernel kMatrix;
extern const Kernel kWinograd;

}  // namespace dilconv
