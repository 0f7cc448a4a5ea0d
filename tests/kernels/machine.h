// What check.cpp must know about the machine that runs the kernels. Each library that it is linked
// with has a file that says it.
#pragma once

#include <vector>

#include "../../csrc/core/dilconv.h"

// A way to run a kernel; all ways must give the same bits.
struct Way {
  const char* name;
  dilconv_execution execution;
  void (*prepare)();
};

struct Machine {
  const char* device;  // whose kernels are checked
  const char* oracle;  // the device that has the reference kernel of csrc/core
  std::vector<const char*> instruction_sets;
  std::vector<Way> ways;
  void (*select)(const char* instruction_set);
  // The address at which kernels find the host's memory, until the next unmap().
  void* (*map)(void* host, size_t bytes, bool writable, const char* name);
  void (*unmap)();
};

Machine this_machine();
