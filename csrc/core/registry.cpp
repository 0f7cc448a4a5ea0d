#include "registry.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>

namespace dilconv {
namespace {

// Values are pointers to names that live as long as the process, so reading one needs no lock.
struct Options {
  std::atomic<const char*> kernel{""};
  std::atomic<const char*> isa{""};
  std::atomic<bool> verbose{false};
  std::atomic<bool> winograd{true};
  std::string environment_error;  // a bad environment variable fails every selection
};

Options& options() {
  static Options instance;
  return instance;
}

std::list<Device>& devices() {
  static std::list<Device> instance;
  return instance;
}

std::string unknown(const std::string& name, const std::string& value, const std::string& choices) {
  return "option '" + name + "' must be one of " + choices + " or empty, but it is '" + value + "'";
}

std::string set_kernel(const std::string& value) {
  std::string choices;
  for (const Device& device : devices())
    for (const Kernel& kernel : device.kernels) {
      if (value == kernel.name) {
        options().kernel = kernel.name;
        return {};
      }
      choices += std::string(choices.empty() ? "'" : ", '") + kernel.name + "'";
    }
  return unknown("kernel", value, choices);
}

std::string set_isa(const std::string& value) {
  std::string choices;
  for (const Device& device : devices())
    for (const char* name : device.instruction_sets) {
      if (value == name) {
        options().isa = name;
        return {};
      }
      choices += std::string(choices.empty() ? "'" : ", '") + name + "'";
    }
  return unknown("isa", value, choices);
}

std::string set_switch(std::atomic<bool>& option, bool by_default, const std::string& name,
                       const std::string& value) {
  if (!value.empty() && value != "0" && value != "1") return unknown(name, value, "'0', '1'");
  option = value.empty() ? by_default : value == "1";
  return {};
}

void read_environment(const char* name, const char* variable) {
  const char* value = std::getenv(variable);
  if (!value) return;
  const std::string error = set_option(name, value);
  if (!error.empty()) options().environment_error = std::string(variable) + ": " + error;
}

}  // namespace

bool register_device(Device device) {
  devices().push_back(std::move(device));
  read_environment("kernel", "DILCONV_KERNEL");
  read_environment("isa", "DILCONV_ISA");
  read_environment("verbose", "DILCONV_VERBOSE");
  read_environment("winograd", "DILCONV_WINOGRAD");
  return true;
}

const Device* find_device(const char* name) {
  for (const Device& device : devices())
    if (std::strcmp(device.name, name) == 0) return &device;
  return nullptr;
}

const Kernel* select(const Device& device, const char* name, const ConvProblem& problem, int isa,
                     std::string& reason) {
  if (!options().environment_error.empty()) {
    reason = options().environment_error;
    return nullptr;
  }
  const char* const forced = options().kernel;
  if (!name && *forced) name = forced;
  for (const Kernel& kernel : device.kernels) {
    if (name && std::strcmp(name, kernel.name) != 0) continue;
    const char* refusal = kernel.refuses(problem, isa);
    if (!refusal && (name || !kernel.declines(problem, isa))) return &kernel;
    if (name) {
      reason = std::string("kernel '") + name + "' refuses: " + refusal;
      return nullptr;
    }
  }
  reason = name ? std::string("device '") + device.name + "' has no kernel '" + name + "'"
                : "no kernel accepts " + describe(problem);
  return nullptr;
}

void log_choice(const Kernel& kernel, const ConvProblem& problem) {
  if (options().verbose)
    std::fprintf(stderr, "dilconv: %s: %s\n", kernel.name, describe(problem).c_str());
}

bool winograd_allowed() { return options().winograd; }

int active_instruction_set(const Device& device) {
  const int machine = device.machine_isa();
  const char* const cap = options().isa;
  for (size_t i = 0; i < device.instruction_sets.size(); ++i)
    if (device.instruction_sets[i] == cap) return std::max(machine, int(i));
  return machine;
}

const char* get_option(const std::string& name) {
  if (name == "kernel") return options().kernel;
  if (name == "isa") return options().isa;
  if (name == "verbose") return options().verbose ? "1" : "0";
  if (name == "winograd") return options().winograd ? "1" : "0";
  return nullptr;
}

std::string set_option(const std::string& name, const std::string& value) {
  if (name == "kernel") {
    if (!value.empty()) return set_kernel(value);
    options().kernel = "";
    return {};
  }
  if (name == "isa") {
    if (!value.empty()) return set_isa(value);
    options().isa = "";
    return {};
  }
  if (name == "verbose") return set_switch(options().verbose, false, name, value);
  if (name == "winograd") return set_switch(options().winograd, true, name, value);
  return "there is no option '" + name +
         "': the options are 'kernel', 'isa', 'verbose' and 'winograd'";
}

}  // namespace dilconv
