// What the CPU's kernels share around their inner parts.
#pragma once

#include "../core/kernel.h"
#include "simd/instruction_set.h"

namespace dilconv {

// The kernels for an index into the device's instruction sets.
const InstructionSet& kernels_for(int isa);

// Its products of bfloat16; null if it has none.
const MatrixFunctions* matrix_for(int isa);

// Bytes of the type that sums are kept in.
int element_bytes(const ConvProblem& problem);

// Whether the tensor that the op writes has no elements.
bool writes_nothing(const ConvProblem& problem);

// How many of the threads the problem is worth.
int choose_workers(const ConvProblem& problem, int threads);

// Refers to the threads, which must outlive it.
TaskPool make_pool(const ConvProblem& problem, const Threads& threads);

}  // namespace dilconv
