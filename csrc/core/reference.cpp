#include "reference.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "scalar.h"

namespace dilconv {
namespace {

// Floating types add up in double; integers wrap modulo 2^64, and so modulo their own width.
template <class S>
struct Traits {
  using Sum = std::conditional_t<std::is_integral_v<S>, uint64_t, double>;
  static Sum load(S value) {
    if constexpr (std::is_integral_v<S>) {
      return uint64_t(int64_t(value));
    } else {
      return widen(value);
    }
  }
  static S store(Sum sum) {
    if constexpr (std::is_integral_v<S>) {
      return S(sum);
    } else {
      S result;
      narrow(std::conditional_t<std::is_same_v<S, double>, double, float>(sum), result);
      return result;
    }
  }
};

template <class S>
struct View {
  S* data;
  const int64_t* strides;
  S& at(int64_t a, int64_t b, int64_t c, int64_t d) const {
    return data[a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]];
  }
};

template <class S>
class Reference {
  using T = Traits<S>;
  using Sum = typename T::Sum;

 public:
  Reference(const ConvProblem& p, const Tensors& t)
      : p_(p),
        x_{static_cast<S*>(t.x), p.x_strides},
        w_{static_cast<S*>(t.w), p.w_strides},
        y_{static_cast<S*>(t.y), p.y_strides},
        bias_(static_cast<const S*>(t.bias)),
        in_per_group_(p.in_channels / p.groups),
        out_per_group_(p.out_channels / p.groups) {}

  // Each op is a list of planes, so that threads can share them: (n, c) of x or y, (o, c) of w.
  int64_t planes() const {
    if (p_.op == DILCONV_CONV2D) return p_.batch * p_.out_channels;
    if (p_.op == DILCONV_GRAD_INPUT) return p_.batch * p_.in_channels;
    return p_.out_channels * in_per_group_;
  }

  void plane(int64_t index) const {
    if (p_.op == DILCONV_CONV2D)
      return output_plane(index / p_.out_channels, index % p_.out_channels);
    if (p_.op == DILCONV_GRAD_INPUT)
      return input_plane(index / p_.in_channels, index % p_.in_channels);
    weight_plane(index / in_per_group_, index % in_per_group_);
  }

 private:
  int64_t row(int64_t i, int64_t a) const {
    return i * p_.stride[0] + a * p_.dilation[0] - p_.pad_before[0];
  }
  int64_t column(int64_t j, int64_t b) const {
    return j * p_.stride[1] + b * p_.dilation[1] - p_.pad_before[1];
  }
  bool inside(int64_t h, int64_t w) const {
    return h >= 0 && h < p_.in_size[0] && w >= 0 && w < p_.in_size[1];
  }

  void output_plane(int64_t n, int64_t o) const {
    const int64_t first = o / out_per_group_ * in_per_group_;
    for (int64_t i = 0; i < p_.out_size[0]; ++i)
      for (int64_t j = 0; j < p_.out_size[1]; ++j) {
        Sum sum = bias_ ? T::load(bias_[o]) : Sum(0);
        for (int64_t a = 0; a < p_.kernel[0]; ++a)
          for (int64_t b = 0; b < p_.kernel[1]; ++b) {
            const int64_t h = row(i, a), w = column(j, b);
            if (!inside(h, w)) continue;
            for (int64_t c = 0; c < in_per_group_; ++c)
              sum += T::load(x_.at(n, first + c, h, w)) * T::load(w_.at(o, c, a, b));
          }
        y_.at(n, o, i, j) = T::store(sum);
      }
  }

  void input_plane(int64_t n, int64_t c) const {
    const int64_t first = c / in_per_group_ * out_per_group_;
    for (int64_t h = 0; h < p_.in_size[0]; ++h)
      for (int64_t w = 0; w < p_.in_size[1]; ++w) {
        Sum sum = bias_ ? T::load(bias_[c]) : Sum(0);
        for (int64_t a = 0; a < p_.kernel[0]; ++a)
          for (int64_t b = 0; b < p_.kernel[1]; ++b) {
            // The output position (i, j) whose tap (a, b) reads (h, w), if there is one.
            const int64_t i = h - row(0, a), j = w - column(0, b);
            if (i < 0 || j < 0 || i % p_.stride[0] != 0 || j % p_.stride[1] != 0) continue;
            if (i / p_.stride[0] >= p_.out_size[0] || j / p_.stride[1] >= p_.out_size[1]) continue;
            for (int64_t o = 0; o < out_per_group_; ++o)
              sum += T::load(y_.at(n, first + o, i / p_.stride[0], j / p_.stride[1])) *
                     T::load(w_.at(first + o, c % in_per_group_, a, b));
          }
        x_.at(n, c, h, w) = T::store(sum);
      }
  }

  void weight_plane(int64_t o, int64_t c) const {
    const int64_t channel = o / out_per_group_ * in_per_group_ + c;
    for (int64_t a = 0; a < p_.kernel[0]; ++a)
      for (int64_t b = 0; b < p_.kernel[1]; ++b) {
        Sum sum = 0;
        for (int64_t n = 0; n < p_.batch; ++n)
          for (int64_t i = 0; i < p_.out_size[0]; ++i)
            for (int64_t j = 0; j < p_.out_size[1]; ++j) {
              const int64_t h = row(i, a), w = column(j, b);
              if (inside(h, w))
                sum += T::load(x_.at(n, channel, h, w)) * T::load(y_.at(n, o, i, j));
            }
        w_.at(o, c, a, b) = T::store(sum);
      }
  }

  const ConvProblem& p_;
  View<S> x_, w_, y_;
  const S* bias_;
  int64_t in_per_group_, out_per_group_;
};

template <class S>
void run_typed(const ConvProblem& problem, const Tensors& tensors, const Threads& threads) {
  const Reference<S> reference(problem, tensors);
  const int64_t planes = reference.planes();
  const int workers = int(std::clamp<int64_t>(planes, 1, threads.count()));
  threads.run(workers, [&](int worker) {
    for (int64_t plane = planes * worker / workers; plane < planes * (worker + 1) / workers;
         ++plane)
      reference.plane(plane);
  });
}

const char* refuses(const ConvProblem&, int) { return nullptr; }

size_t workspace_bytes(const ConvProblem&, int, int) { return 0; }

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int) {
  using Run = void (*)(const ConvProblem&, const Tensors&, const Threads&);
  constexpr Run runs[DILCONV_DTYPES] = {
      run_typed<double>,   run_typed<float>,   run_typed<Half>,
      run_typed<BFloat16>, run_typed<int8_t>,  run_typed<uint8_t>,
      run_typed<int16_t>,  run_typed<int32_t>, run_typed<int64_t>};
  runs[problem.dtype](problem, tensors, execution.threads);
}

}  // namespace

const Kernel kReference = {"reference", refuses, never_declines, workspace_bytes, run};

}  // namespace dilconv
