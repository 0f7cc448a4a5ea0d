// dilconv_ext._fast: conv2d and conv1d for the plain case, called without torch's schema-driven
// argument parsing, which alone costs about as much as all of F.conv2d on a small input.
//
// The plain case: tensors (no subclasses, no __torch_function__ mode), ints or tuples of ints. For
// anything else, and for arguments that the op rejects, the functions return NotImplemented, and
// Python takes its general path, which also words the errors.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <ATen/PythonTorchFunctionTLS.h>

#include "../ops.h"

namespace {

using c10::SymInt;

bool read_int(PyObject* object, SymInt& value) {
  if (!PyLong_CheckExact(object)) return false;
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (overflow != 0 || number < INT32_MIN || number > INT32_MAX) return false;
  value = SymInt(int64_t(number));
  return true;
}

// An int for all, or a tuple with one int each.
template <size_t size>
bool read_ints(PyObject* object, std::array<SymInt, size>& values) {
  if (PyTuple_CheckExact(object)) {
    if (PyTuple_GET_SIZE(object) != Py_ssize_t(size)) return false;
    for (size_t i = 0; i < size; ++i)
      if (!read_int(PyTuple_GET_ITEM(object, i), values[i])) return false;
    return true;
  }
  if (!read_int(object, values[0])) return false;
  values.fill(values[0]);
  return true;
}

bool read_padding(PyObject* object, int spatial, std::array<SymInt, 4>& pads) {
  pads.fill(0);
  std::array<SymInt, 4> given;
  std::array<SymInt, 2> two;
  if (read_ints(object, given)) {
    if (spatial == 2) {
      pads = given;
    } else if (PyTuple_CheckExact(object)) {
      return false;
    } else {
      pads[2] = pads[3] = given[0];
    }
  } else if (read_ints(object, two)) {
    // (height, width) in two dimensions, (left, right) in one.
    if (spatial == 2) pads[0] = pads[1] = two[0];
    pads[2] = spatial == 2 ? two[1] : two[0];
    pads[3] = two[1];
  } else {
    return false;
  }
  for (const SymInt& pad : pads)
    if (pad < 0) return false;
  return true;
}

template <int spatial>
bool read_steps(PyObject* object, std::array<SymInt, 2>& steps) {
  if constexpr (spatial == 2) return read_ints(object, steps);
  std::array<SymInt, 1> one;
  if (!read_ints(object, one)) return false;
  steps = {SymInt(1), one[0]};
  return true;
}

// (input, weight, bias, stride, padding, dilation, groups), as the public functions take them.
template <int spatial>
PyObject* convolve(PyObject*, PyObject* const* given, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  constexpr int64_t rank = spatial + 2;
  const bool plain = count == 7 && THPVariable_CheckExact(given[0]) &&
                     THPVariable_CheckExact(given[1]) &&
                     (given[2] == Py_None || THPVariable_CheckExact(given[2])) &&
                     !at::impl::torch_function_mode_enabled();
  if (!plain) Py_RETURN_NOTIMPLEMENTED;
  const at::Tensor& input = THPVariable_Unpack(given[0]);
  const at::Tensor& weight = THPVariable_Unpack(given[1]);
  std::array<SymInt, 2> stride, dilation;
  std::array<SymInt, 4> padding;
  SymInt groups;
  if (!read_steps<spatial>(given[3], stride) || !read_padding(given[4], spatial, padding) ||
      !read_steps<spatial>(given[5], dilation) || !read_int(given[6], groups) ||
      weight.dim() != rank || (input.dim() != rank && input.dim() != rank - 1))
    Py_RETURN_NOTIMPLEMENTED;
  std::optional<at::Tensor> bias;
  if (given[2] != Py_None) bias = THPVariable_Unpack(given[2]);
  at::Tensor output;
  try {
    pybind11::gil_scoped_release no_gil;
    output = dilconv::conv2d(input, weight, bias, {stride, padding, dilation, groups});
  } catch (const c10::Error&) {
    Py_RETURN_NOTIMPLEMENTED;
  }
  return THPVariable_Wrap(std::move(output));
  END_HANDLE_TH_ERRORS
}

template <int spatial>
PyCFunction function() {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(convolve<spatial>));
}

PyMethodDef methods[] = {{"conv2d", function<2>(), METH_FASTCALL, nullptr},
                         {"conv1d", function<1>(), METH_FASTCALL, nullptr},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_fast", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__fast() { return PyModule_Create(&definition); }
