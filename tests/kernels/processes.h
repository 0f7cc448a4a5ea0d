// Processes that share what they count. Not threads: a kernel's instruction set is an option of the
// whole process.
#pragma once

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

// A T in memory that processes forked later share.
template <class T>
T& shared() {
  void* memory =
      mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return *new (memory) T();
}

// Calls work() in each of count processes, or in this one for a count of 1; returns whether all
// came to their end.
template <class Work>
bool in_processes(int count, Work work) {
  if (count <= 1) return work(), true;
  std::fflush(stdout);
  std::vector<pid_t> children;
  for (int i = 0; i < count; ++i) {
    children.push_back(fork());
    if (children.back() == 0) {
      work();
      std::exit(0);
    }
  }
  bool all = true;
  for (pid_t child : children) {
    int status = 0;
    all = child > 0 && waitpid(child, &status, 0) == child && status == 0 && all;
  }
  return all;
}
