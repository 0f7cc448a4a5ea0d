// Devices, process-wide options, and the selection of a kernel.
#pragma once

#include <string>

#include "kernel.h"

namespace dilconv {

// Called once per device while the library loads.
bool register_device(Device device);

const Device* find_device(const char* name);

// The kernel that runs the problem: the named one, else the one forced by the option "kernel", else
// the first that neither refuses nor declines. Null if it refuses or is unknown; then `reason` says
// why.
const Kernel* select(const Device& device, const char* name, const ConvProblem& problem, int isa,
                     std::string& reason);

// Writes the choice to stderr when the option "verbose" is set.
void log_choice(const Kernel& kernel, const ConvProblem& problem);

// Whether the option "winograd" allows kernels that trade accuracy for speed.
bool winograd_allowed();

// Index into the device's instruction_sets: the machine's best, as capped by the option "isa".
int active_instruction_set(const Device& device);

const char* get_option(const std::string& name);

// Returns why the value is not accepted, or an empty string.
std::string set_option(const std::string& name, const std::string& value);

}  // namespace dilconv
