// The CPU's kernels, best first.
#include "kernels.h"

#include "../core/reference.h"
#include "../core/registry.h"
#include "isa.h"

namespace dilconv {
namespace {

const bool registered =
    register_device({"cpu",
                     {kDepthwise, kGrouped, kKn2row, kWinograd, kMatrix, kDirect, kReference},
                     machine_instruction_sets(),
                     [] { return 0; }});

}  // namespace
}  // namespace dilconv
