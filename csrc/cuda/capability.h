// The compute capabilities that the kernels are made for: the instruction sets of device "cuda".
#pragma once

#include <string>
#include <vector>

namespace dilconv::cuda {

// Best first: {"sm_120", ..., "sm_75"}.
std::vector<const char*> instruction_sets();

// 120 for "sm_120", ...; isa is an index into instruction_sets().
int compute_capability(int isa);

// The index of the best one that the current GPU runs; without a GPU, of the last. Fails if this
// build has no code for the GPU.
int machine_isa();

// Of the current GPU, as "12.0".
std::string machine_capability();

}  // namespace dilconv::cuda
