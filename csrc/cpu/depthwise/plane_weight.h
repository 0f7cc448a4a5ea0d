// Depthwise grad_weight, vectors of neighbouring pixels: the products of a channel's packed planes.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Adds to sums, a vector for each tap, whose lanes are to be added up in the end.
template <class T>
class PlaneWeight {
 public:
  // Tap b of a row reads columns[b] columns to the right of y's, in rows with margins. y's rows are
  // whole vectors, with zeros at their end.
  PlaneWeight(const DepthwisePlan& plan, const T* x, int64_t x_pitch, const T* y, int64_t y_pitch,
              const int64_t* columns, T* sums)
      : p_(plan),
        x_(x),
        x_pitch_(x_pitch),
        y_(y),
        y_pitch_(y_pitch),
        columns_(columns),
        sums_(sums) {}

  void run() const {
    const Span& h = p_.regions[0].h;
    const int64_t distance = p_.kernel[0] > 1 ? h.taps[1].origin - h.taps[0].origin : 1;
    const bool together = h.read_step == 1 && h.count >= kLongPhase * distance;
    const Cut down(p_.kernel[0], together ? kRows : 1), across(p_.kernel[1], kTaps);
    for (int64_t r = 0; r < down.parts; ++r)
      for (int64_t t = 0; t < across.parts; ++t)
        block<kRows, kTaps>({down.begin(r), down.begin(r + 1)},
                            {across.begin(t), across.begin(t + 1)},
                            down.size(r) > 1 ? distance : 1);
  }

 private:
  // Rows of the kernel, and taps of them, whose sums stay in registers, with as many rows of y.
  static constexpr int kRows = kMaxRows == 8 ? 4 : 3, kTaps = kMaxRows == 8 ? 5 : 3;
  // Rows of a phase that make it worthwhile to begin and end several rows of the kernel together.
  static constexpr int64_t kLongPhase = 4;
  static constexpr int64_t kLongest = 256;  // products summed in one chain
  // Rows whose columns are walked down before the next rows: what fits into the cache.
  static constexpr int64_t kStripBytes = 65536, kShortStrip = 6;

  template <int A, int B>
  void block(Part a, Part b, int64_t phases) const {
    if constexpr (A > 1)
      if (a.end - a.begin < A) return block<A - 1, B>(a, b, phases);
    if constexpr (B > 1)
      if (b.end - b.begin < B) return block<A, B - 1>(a, b, phases);
    Vector<T> total[A][B] = {};
    int64_t chain = 0;
    const int64_t fitting = kStripBytes / ((x_pitch_ + y_pitch_) * int64_t(sizeof(T)));
    const Cut strips(p_.regions[0].h.count / phases + A, most(kShortStrip, fitting));
    for (int64_t phase = 0; phase < phases; ++phase)
      for (int64_t s = 0; s < strips.parts; ++s)
        for (int64_t j = 0; j < y_pitch_; j += kLanes<T>)
          add_vectors<A, B>(a.begin, b.begin, phase, phases, {strips.begin(s), strips.begin(s + 1)},
                            j, total, chain);
    flush<A, B>(a.begin, b.begin, total);
  }

  // The vectors at column j of the rows phase, phase + apart, ... of y; each row of x, of those in
  // the strip, serves A of them.
  template <int A, int B>
  __attribute__((always_inline)) void add_vectors(int64_t a, int64_t b, int64_t phase,
                                                  int64_t apart, Part strip, int64_t j,
                                                  Vector<T> (&total)[A][B], int64_t& chain) const {
    const Span& h = p_.regions[0].h;
    const int64_t count = h.count > phase ? (h.count - phase + apart - 1) / apart : 0;
    // Row first + u * step of x belongs to the phase's row u - r of y, for row a + r of the kernel.
    const int64_t first = h.taps[a].origin + phase * h.read_step, step = apart * h.read_step;
    const int64_t begin = most(strip.begin, first >= 0 ? 0 : (step - 1 - first) / step);
    const int64_t inside = first >= p_.read_size[0] ? 0 : (p_.read_size[0] - 1 - first) / step + 1;
    const int64_t end = least(strip.end, least(count + A - 1, inside));
    const T* written = y_ + phase * y_pitch_ + j;
    const auto load_y = [&](int64_t u) {
      return uint64_t(u) < uint64_t(count) ? load(written + u * apart * y_pitch_) : Vector<T>{};
    };
    Vector<T> rows[A] = {};
#pragma GCC unroll 4
    for (int r = 1; r < A; ++r) rows[r - 1] = load_y(begin - r);
    const T* from[B];
#pragma GCC unroll 5
    for (int t = 0; t < B; ++t)
      from[t] = x_ + (first + begin * step) * x_pitch_ + columns_[b + t] + j;
    for (int64_t u = begin; u < end; ++u) {
#pragma GCC unroll 4
      for (int r = A - 1; r > 0; --r) rows[r] = rows[r - 1];
      rows[0] = load_y(u);
#pragma GCC unroll 5
      for (int t = 0; t < B; ++t) {
        const Vector<T> value = load(from[t]);
        from[t] += step * x_pitch_;
#pragma GCC unroll 4
        for (int r = 0; r < A; ++r) total[r][t] += value * rows[r];
      }
      if (++chain == kLongest) {
        flush<A, B>(a, b, total);
        chain = 0;
      }
    }
  }

  template <int A, int B>
  __attribute__((always_inline)) void flush(int64_t a, int64_t b, Vector<T> (&total)[A][B]) const {
#pragma GCC unroll 4
    for (int r = 0; r < A; ++r)
#pragma GCC unroll 5
      for (int t = 0; t < B; ++t) {
        T* sum = sums_ + ((a + r) * p_.kernel[1] + b + t) * kLanes<T>;
        store(sum, load(sum) + total[r][t]);
        total[r][t] = Vector<T>{};
      }
  }

  const DepthwisePlan& p_;
  const T* x_;
  int64_t x_pitch_;
  const T* y_;
  int64_t y_pitch_;
  const int64_t* columns_;
  T* sums_;
};
