// dilconv_ext._C: build information, the kernel table, plans and options, for Python. It knows
// neither torch nor the kernels: it asks the loaded ops library through the C interface, and so
// imports next to any torch.
#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>

#include "../core/dilconv.h"

namespace py = pybind11;

namespace {

struct Library {
  void* handle = nullptr;

  void open(const std::string& path) {
    handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) throw py::import_error(dlerror());
  }

  template <class Function>
  Function* symbol(const char* name) const {
    if (!handle) throw std::runtime_error("dilconv_ext._C: the ops library is not loaded");
    void* found = dlsym(handle, name);
    if (!found) throw std::runtime_error(dlerror());
    return reinterpret_cast<Function*>(found);
  }
} library;

#define DILCONV_CALL(function) library.symbol<decltype(function)>(#function)

using Message = std::array<char, 512>;

void check(dilconv_status status, const Message& message) {
  if (status == DILCONV_INVALID) throw py::value_error(message.data());
  if (status != DILCONV_OK) throw std::runtime_error(message.data());
}

std::vector<std::string> names(const char* (*at)(const char*, int), const std::string& device) {
  std::vector<std::string> result;
  while (const char* name = at(device.c_str(), int(result.size()))) result.push_back(name);
  return result;
}

std::vector<std::string> kernels(const std::string& device) {
  return names(DILCONV_CALL(dilconv_kernel_name), device);
}
std::vector<std::string> isas(const std::string& device) {
  return names(DILCONV_CALL(dilconv_instruction_set), device);
}

// A kernel's name, why it refuses and why it declines (None if it does not), its workspace in
// bytes.
using Verdict =
    std::tuple<std::string, std::optional<std::string>, std::optional<std::string>, size_t>;

// An empty isa stands for this machine's, as capped by the option.
std::vector<Verdict> explain(const std::vector<int64_t>& fields, int threads,
                             const std::string& device, const std::string& isa) {
  dilconv_problem problem;
  if (fields.size() * sizeof(int64_t) != sizeof problem)
    throw py::value_error("wrong number of problem fields");
  std::memcpy(&problem, fields.data(), sizeof problem);
  const char* const target = isa.empty() ? nullptr : isa.c_str();
  std::vector<Verdict> verdicts;
  for (const std::string& name : kernels(device)) {
    Message message = {};
    size_t bytes = 0;
    const dilconv_status status =
        DILCONV_CALL(dilconv_workspace)(device.c_str(), name.c_str(), target, &problem, threads,
                                        &bytes, message.data(), message.size());
    if (status == DILCONV_REFUSED) {
      verdicts.emplace_back(name, std::string(message.data()), std::nullopt, 0);
      continue;
    }
    check(status, message);
    const bool declines =
        DILCONV_CALL(dilconv_declines)(device.c_str(), name.c_str(), target, &problem,
                                       message.data(), message.size()) == DILCONV_REFUSED;
    verdicts.emplace_back(name, std::nullopt,
                          declines ? std::optional<std::string>(message.data()) : std::nullopt,
                          bytes);
  }
  return verdicts;
}

std::string get_option(const std::string& name) {
  const char* value = DILCONV_CALL(dilconv_get_option)(name.c_str());
  if (!value) throw py::value_error("there is no option '" + name + "'");
  return value;
}

void set_option(const std::string& name, const std::string& value) {
  Message message = {};
  check(
      DILCONV_CALL(dilconv_set_option)(name.c_str(), value.c_str(), message.data(), message.size()),
      message);
}

std::map<std::string, std::string> build_info() {
  return {{"torch", DILCONV_TORCH},
          {"cuda", DILCONV_CUDA},
          {"cuda_capabilities", DILCONV_CAPABILITIES},
          {"compiler", __VERSION__},
          {"cxx_standard", std::to_string(__cplusplus)}};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build information, kernel table, plans and options of dilconv_ext";
  m.def("open", [](const std::string& path) { library.open(path); }, py::arg("path"));
  m.def("build_info", build_info);
  m.def("kernels", kernels, py::arg("device") = "cpu");
  m.def("isas", isas, py::arg("device") = "cpu");
  m.def("explain", explain, py::arg("fields"), py::arg("threads") = 1, py::arg("device") = "cpu",
        py::arg("isa") = "");
  m.def("get_option", get_option, py::arg("name"));
  m.def("set_option", set_option, py::arg("name"), py::arg("value"));
}
