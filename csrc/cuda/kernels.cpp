// The GPU's kernels, best first.
#include "kernels.h"

#include "../core/registry.h"
#include "capability.h"

namespace dilconv {
namespace {

const bool registered =
    register_device({"cuda",
                     {kCudaDepthwise, kCudaTensorCores, kCudaTf32, kCudaSimt, kCudaReference},
                     cuda::instruction_sets(),
                     cuda::machine_isa});

}  // namespace
}  // namespace dilconv
