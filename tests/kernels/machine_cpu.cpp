// The CPU: every instruction set that it has, with one thread and with three.
#include "machine.h"

namespace {

// "Threads" that take turns, last one first: workers are told apart without a thread library.
void run_backwards(void*, int count, void (*task)(void*, int), void* context) {
  while (count-- > 0) task(context, count);
}

void nothing() {}

}  // namespace

Machine this_machine() {
  Machine machine = {"cpu",
                     "cpu",
                     {},
                     {{"one thread", {{1, nullptr, nullptr}, nullptr}, nothing},
                      {"three threads", {{3, run_backwards, nullptr}, nullptr}, nothing}},
                     [](const char* isa) { dilconv_set_option("isa", isa, nullptr, 0); },
                     [](void* host, size_t, bool, const char*) { return host; },
                     nothing};
  for (int i = 0; const char* isa = dilconv_instruction_set("cpu", i); ++i)
    machine.instruction_sets.push_back(isa);
  return machine;
}
