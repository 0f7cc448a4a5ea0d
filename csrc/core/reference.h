// The obvious kernel: runs everything, defines what is right, is not fast.
#pragma once

#include "kernel.h"

namespace dilconv {

extern const Kernel kReference;

}  // namespace dilconv
