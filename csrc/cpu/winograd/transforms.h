// Winograd's minimal filtering F(m, r): m outputs of an r-tap filter from m + r - 1 products. Lavin
// and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
//
// The products belong to m + r - 2 points and infinity: for each point, `data` is the Lagrange
// numerator on the inputs, `filter` the value of the taps' polynomial over the denominator, and
// `result` multiplies by powers of the point. For grad_weight, `spread` and `collect` are the
// transposes of `result` and `filter`. Points come in pairs +p and -p, which share their even and
// odd halves.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <int m, int r>
struct Winograd;

template <int m, int r>
struct WinogradSizes {
  static constexpr int outputs = m, taps = r, products = m + r - 1;
};

// Along an axis on which the kernel has one element, nothing is saved and nothing transformed.
template <>
struct Winograd<1, 1> : WinogradSizes<1, 1> {
  template <class T, class V>
  static inline void data(const V* x, V* to) {
    to[0] = x[0];
  }
  template <class T, class V>
  static inline void filter(const V* w, V* to) {
    to[0] = w[0];
  }
  template <class T, class V>
  static inline void result(const V* m, V* to) {
    to[0] = m[0];
  }
  template <class T, class V>
  static inline void spread(const V* y, V* to) {
    to[0] = y[0];
  }
  template <class T, class V>
  static inline void collect(const V* s, V* to) {
    to[0] = s[0];
  }
};

// Points 0, 1, -1 and infinity.
template <>
struct Winograd<2, 3> : WinogradSizes<2, 3> {
  template <class T, class V>
  static inline void data(const V* x, V* to) {
    to[0] = x[2] - x[0];
    to[1] = x[2] + x[1];
    to[2] = x[2] - x[1];
    to[3] = x[3] - x[1];
  }
  template <class T, class V>
  static inline void filter(const V* w, V* to) {
    const V even = (w[0] + w[2]) * T(0.5), odd = w[1] * T(0.5);
    to[0] = -w[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = w[2];
  }
  template <class T, class V>
  static inline void result(const V* m, V* to) {
    to[0] = m[0] + (m[1] + m[2]);
    to[1] = (m[1] - m[2]) + m[3];
  }
  template <class T, class V>
  static inline void spread(const V* y, V* to) {
    to[0] = y[0];
    to[1] = y[0] + y[1];
    to[2] = y[0] - y[1];
    to[3] = y[1];
  }
  template <class T, class V>
  static inline void collect(const V* s, V* to) {
    const V even = (s[1] + s[2]) * T(0.5);
    to[0] = even - s[0];
    to[1] = (s[1] - s[2]) * T(0.5);
    to[2] = even + s[3];
  }
};

// Points 0, a, -a, b and infinity, chosen as for tiles of 4.
template <>
struct Winograd<3, 3> : WinogradSizes<3, 3> {
  static constexpr double a = 0.75, b = 2, aa = a * a, bb = b * b;
  // 1 over the denominators, at 0, a, -a and b.
  static constexpr double at_0 = 1 / (aa * b), at_b = 1 / (b * (bb - aa));
  static constexpr double at_a = 1 / (2 * aa * (a - b)), at_minus_a = -1 / (2 * aa * (a + b));

  template <class T, class V>
  static inline void data(const V* x, V* to) {
    const V even = x[3] - x[2] * T(b), odd = (x[2] - x[1] * T(b)) * T(a);
    to[0] = even - (x[1] - x[0] * T(b)) * T(aa);
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = x[3] - x[1] * T(aa);
    to[4] = (x[4] - x[3] * T(b)) - (x[2] - x[1] * T(b)) * T(aa);
  }
  template <class T, class V>
  static inline void filter(const V* w, V* to) {
    const V even = w[0] + w[2] * T(aa), odd = w[1] * T(a);
    to[0] = w[0] * T(at_0);
    to[1] = (even + odd) * T(at_a);
    to[2] = (even - odd) * T(at_minus_a);
    to[3] = (w[0] + w[1] * T(b) + w[2] * T(bb)) * T(at_b);
    to[4] = w[2];
  }
  template <class T, class V>
  static inline void result(const V* m, V* to) {
    const V even = m[1] + m[2], odd = m[1] - m[2];
    to[0] = (m[0] + m[3]) + even;
    to[1] = odd * T(a) + m[3] * T(b);
    to[2] = (even * T(aa) + m[3] * T(bb)) + m[4];
  }
  template <class T, class V>
  static inline void spread(const V* y, V* to) {
    const V even = y[0] + y[2] * T(aa), odd = y[1] * T(a);
    to[0] = y[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = y[0] + y[1] * T(b) + y[2] * T(bb);
    to[4] = y[2];
  }
  template <class T, class V>
  static inline void collect(const V* s, V* to) {
    const V plus = s[1] * T(at_a), minus = s[2] * T(at_minus_a), last = s[3] * T(at_b);
    to[0] = s[0] * T(at_0) + (plus + minus) + last;
    to[1] = (plus - minus) * T(a) + last * T(b);
    to[2] = (plus + minus) * T(aa) + last * T(bb) + s[4];
  }
};

// Points 0, a, -a, b, -b and infinity: a = 3/4 and b = 3/2 have exact squares and about half of the
// error of the usual 1 and 2.
template <int m, int r>
struct Winograd : WinogradSizes<m, r> {
  static_assert(m + r - 1 == 6, "other numbers of products are specialised");
  static constexpr double a = 0.75, b = 1.5, aa = a * a, bb = b * b;
  // Powers of the points, and 1 over the denominators, at 0, ±a and ±b.
  static constexpr double a_to[] = {1, a, aa, aa * a, aa * aa};
  static constexpr double b_to[] = {1, b, bb, bb * b, bb * bb};
  static constexpr double at_0 = 1 / (aa * bb);
  static constexpr double at_a = 1 / (2 * aa * (aa - bb)), at_b = 1 / (2 * bb * (bb - aa));

  template <class T, class V>
  static inline void data(const V* x, V* to) {
    const V even_a = x[4] - x[2] * T(bb), odd_a = (x[3] - x[1] * T(bb)) * T(a);
    const V even_b = x[4] - x[2] * T(aa), odd_b = (x[3] - x[1] * T(aa)) * T(b);
    to[0] = (x[4] - x[2] * T(aa + bb)) + x[0] * T(aa * bb);
    join<V>({even_a, odd_a, even_b, odd_b}, to);
    to[5] = (x[5] - x[3] * T(aa + bb)) + x[1] * T(aa * bb);
  }
  template <class T, class V>
  static inline void filter(const V* w, V* to) {
    Halves<V> h = {w[0] * T(at_a), w[1] * T(at_a * a), w[0] * T(at_b), w[1] * T(at_b * b)};
#pragma GCC unroll 5
    for (int k = 2; k < r; ++k) {
      (k % 2 ? h.odd_a : h.even_a) += w[k] * T(at_a * a_to[k]);
      (k % 2 ? h.odd_b : h.even_b) += w[k] * T(at_b * b_to[k]);
    }
    to[0] = w[0] * T(at_0);
    join(h, to);
    to[5] = w[r - 1];
  }
  template <class T, class V>
  static inline void result(const V* s, V* to) {
    const Halves<V> h = split(s);
    to[0] = s[0] + (h.even_a + h.even_b);
#pragma GCC unroll 5
    for (int i = 1; i < m; ++i)
      to[i] = (i % 2 ? h.odd_a : h.even_a) * T(a_to[i]) + (i % 2 ? h.odd_b : h.even_b) * T(b_to[i]);
    to[m - 1] += s[5];
  }
  template <class T, class V>
  static inline void spread(const V* y, V* to) {
    constexpr int even = (m - 1) / 2 * 2, odd = m / 2 * 2 - 1;  // the last of each
    Halves<V> h = {y[even], y[odd], y[even], y[odd]};
#pragma GCC unroll 5
    for (int i = even - 2; i >= 0; i -= 2) {
      h.even_a = y[i] + h.even_a * T(aa);
      h.even_b = y[i] + h.even_b * T(bb);
    }
#pragma GCC unroll 5
    for (int i = odd - 2; i >= 0; i -= 2) {
      h.odd_a = y[i] + h.odd_a * T(aa);
      h.odd_b = y[i] + h.odd_b * T(bb);
    }
    h.odd_a = h.odd_a * T(a);
    h.odd_b = h.odd_b * T(b);
    to[0] = y[0];
    join(h, to);
    to[5] = y[m - 1];
  }
  template <class T, class V>
  static inline void collect(const V* s, V* to) {
    const Halves<V> h = split(s);
    to[0] = s[0] * T(at_0) + (h.even_a * T(at_a) + h.even_b * T(at_b));
#pragma GCC unroll 5
    for (int k = 1; k < r; ++k)
      to[k] = (k % 2 ? h.odd_a : h.even_a) * T(at_a * a_to[k]) +
              (k % 2 ? h.odd_b : h.even_b) * T(at_b * b_to[k]);
    to[r - 1] += s[5];
  }

 private:
  template <class V>
  struct Halves {
    V even_a, odd_a, even_b, odd_b;
  };

  // Of the products at ±a and ±b, and back.
  template <class V>
  static inline Halves<V> split(const V* s) {
    return {s[1] + s[2], s[1] - s[2], s[3] + s[4], s[3] - s[4]};
  }
  template <class V>
  static inline void join(const Halves<V>& h, V* to) {
    to[1] = h.even_a + h.odd_a;
    to[2] = h.even_a - h.odd_a;
    to[3] = h.even_b + h.odd_b;
    to[4] = h.even_b - h.odd_b;
  }
};

// The algorithm along both axes. Row i and column j of a transformed tile or filter are its plane
// i * W::products + j.
template <class Height, class Width>
struct WinogradForm {
  using H = Height;
  using W = Width;
  static constexpr int planes = H::products * W::products, taps = H::taps * W::taps;
};

// How a tile of x, and one of y for grad_weight, enter Winograd's domain, along one axis.
template <class T, class Axis>
struct DataTransform {
  static constexpr int in = Axis::products;
  static inline void apply(const Vector<T>* x, Vector<T>* to) { Axis::template data<T>(x, to); }
};
template <class T, class Axis>
struct SpreadTransform {
  static constexpr int in = Axis::outputs;
  static inline void apply(const Vector<T>* y, Vector<T>* to) { Axis::template spread<T>(y, to); }
};
