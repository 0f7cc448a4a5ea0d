#pragma once

#include <string>

namespace cuda_emulator {

// The name of the function in its program's source, local ones included; needs the symbol table.
std::string function_name(const void* address);

}  // namespace cuda_emulator
