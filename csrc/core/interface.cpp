// The C interface: finds the device and the kernel, turns exceptions into a status and a message.
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "registry.h"

namespace dilconv {
namespace {

dilconv_status report(dilconv_status status, const std::string& text, char* message, size_t size) {
  if (message && size) std::snprintf(message, size, "%s", text.c_str());
  return status;
}

// The index of the named instruction set, or of the active one for null; -1 if there is none.
int find_isa(const Device& device, const char* name) {
  if (!name) return active_instruction_set(device);
  for (size_t i = 0; i < device.instruction_sets.size(); ++i)
    if (std::strcmp(device.instruction_sets[i], name) == 0) return int(i);
  return -1;
}

// Calls body(kernel, isa) for the selected kernel of a valid problem.
template <class Body>
dilconv_status with_kernel(const char* device_name, const char* name, const char* isa_name,
                           const ConvProblem& problem, char* message, size_t size,
                           const Body& body) try {
  const Device* device = find_device(device_name);
  if (!device)
    return report(DILCONV_INVALID, std::string("there is no device '") + device_name + "'", message,
                  size);
  const std::string error = check_problem(problem);
  if (!error.empty()) return report(DILCONV_INVALID, error, message, size);
  const int isa = find_isa(*device, isa_name);
  if (isa < 0) {
    const std::string name = isa_name ? isa_name : "";
    return report(DILCONV_INVALID,
                  std::string("device '") + device_name + "' has no instruction set '" + name + "'",
                  message, size);
  }
  std::string reason;
  const Kernel* kernel = select(*device, name, problem, isa, reason);
  if (!kernel) return report(DILCONV_REFUSED, reason, message, size);
  body(*kernel, isa);
  return DILCONV_OK;
} catch (const std::exception& error) {
  return report(DILCONV_FAILED, error.what(), message, size);
}

}  // namespace
}  // namespace dilconv

using namespace dilconv;

const char* dilconv_kernel_name(const char* device_name, int index) {
  const Device* device = find_device(device_name);
  return device && index >= 0 && size_t(index) < device->kernels.size()
             ? device->kernels[index].name
             : nullptr;
}

const char* dilconv_instruction_set(const char* device_name, int index) {
  const Device* device = find_device(device_name);
  return device && index >= 0 && size_t(index) < device->instruction_sets.size()
             ? device->instruction_sets[index]
             : nullptr;
}

dilconv_status dilconv_accepts(const char* device, const char* kernel, const char* isa,
                               const dilconv_problem* problem, char* message, size_t message_size) {
  return with_kernel(device, kernel, isa, *problem, message, message_size,
                     [](const Kernel&, int) {});
}

dilconv_status dilconv_declines(const char* device, const char* kernel, const char* isa,
                                const dilconv_problem* problem, char* message,
                                size_t message_size) {
  const char* reason = nullptr;
  const dilconv_status status = with_kernel(
      device, kernel, isa, *problem, message, message_size,
      [&](const Kernel& chosen, int index) { reason = chosen.declines(*problem, index); });
  return reason ? report(DILCONV_REFUSED, reason, message, message_size) : status;
}

dilconv_status dilconv_workspace(const char* device, const char* kernel, const char* isa,
                                 const dilconv_problem* problem, int threads, size_t* bytes,
                                 char* message, size_t message_size) {
  return with_kernel(device, kernel, isa, *problem, message, message_size,
                     [&](const Kernel& chosen, int index) {
                       *bytes = chosen.workspace_bytes(*problem, threads > 0 ? threads : 1, index);
                     });
}

dilconv_status dilconv_run(const char* device, const char* kernel, const dilconv_problem* problem,
                           const dilconv_tensors* tensors, const dilconv_execution* execution,
                           char* message, size_t message_size) {
  if (problem->has_bias && !tensors->bias)
    return report(DILCONV_INVALID, "has_bias is set, but bias is null", message, message_size);
  return with_kernel(device, kernel, nullptr, *problem, message, message_size,
                     [&](const Kernel& chosen, int isa) {
                       log_choice(chosen, *problem);
                       Execution where;
                       if (execution) where = {Threads(execution->threads), execution->stream};
                       chosen.run(*problem, *tensors, where, isa);
                     });
}

const char* dilconv_get_option(const char* name) { return get_option(name); }

dilconv_status dilconv_set_option(const char* name, const char* value, char* message,
                                  size_t message_size) {
  const std::string error = set_option(name, value);
  return error.empty() ? DILCONV_OK : report(DILCONV_INVALID, error, message, message_size);
}
