// The x86-64 or Arm instruction sets that the kernels are compiled for, and those this machine
// runs.
#pragma once

#include <vector>

namespace dilconv {

// Best first, e.g. {"avx512", "avx2", "sse2"}.
std::vector<const char*> machine_instruction_sets();

}  // namespace dilconv
