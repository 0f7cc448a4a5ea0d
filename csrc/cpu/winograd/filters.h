// The weights' way into Winograd's domain.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

constexpr int64_t kFilters = 16;  // read channels whose filters are transformed together

// The taps of some read channels' filters, in vectors of written channels, in the order in which
// they lie in the weight.
template <class T>
struct Taps {
  T values[kFilters * 9 * kLanes<T>];
  int64_t filter_step, tap_step;  // in vectors

  void arrange(const int64_t (&strides)[4]) {
    const bool adjacent = strides[1] == 9 && strides[2] == 3 && strides[3] == 1;
    filter_step = adjacent ? 9 : 1;
    tap_step = adjacent ? 1 : kFilters;
  }
  bool dense() const { return tap_step == 1; }
  T* at(int64_t filter, int64_t tap) {
    return values + (filter * filter_step + tap * tap_step) * kLanes<T>;
  }
};

template <class S, class T>
void load_taps(const WinogradPlan& plan, const S* from, int64_t filters, int64_t channels,
               Taps<T>& taps) {
  const int64_t (&strides)[4] = plan.weight_strides;
  taps.arrange(strides);
  if (channels < kLanes<T>) clear(taps.values, kFilters * 9 * kLanes<T>);
  if (taps.dense()) return load_channels(taps.values, from, filters * 9, channels, 1, strides[0]);
  for (int64_t tap = 0; tap < 9; ++tap)
    load_channels(taps.at(0, tap), from + tap / 3 * strides[2] + tap % 3 * strides[3], filters,
                  channels, strides[1], strides[0]);
}

// The filter transform of read channels `filters` and the vector of written channels that starts
// with `channel`: element (i, j), i and j in [0, m + 2), of a filter goes to
// (i * (m + 2) + j) * plane + filter * pitch.
template <class S, class T, int m>
void transform_filters(const WinogradPlan& plan, const S* weight, const Range& filters,
                       int64_t channel, T* to, int64_t pitch, int64_t plane) {
  constexpr int n = m + 2;
  Taps<T> taps;
  load_taps(plan,
            weight + channel * plan.weight_strides[0] + filters.begin * plan.weight_strides[1],
            filters.end - filters.begin, least(kLanes<T>, plan.written_channels - channel), taps);
  for (int64_t filter = 0; filter < filters.end - filters.begin; ++filter, to += pitch) {
    Vector<T> columns[3][n];
    for (int b = 0; b < 3; ++b) {
      Vector<T> w[3];
      for (int a = 0; a < 3; ++a) {
        const int64_t tap = a * 3 + b;
        w[a] = load(taps.at(filter, plan.flipped ? 8 - tap : tap));
      }
      Winograd<m>::template filter<T>(w, columns[b]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < n; ++r) {
      const Vector<T> w[3] = {columns[0][r], columns[1][r], columns[2][r]};
      Vector<T> u[n];
      Winograd<m>::template filter<T>(w, u);
#pragma GCC unroll 6
      for (int s = 0; s < n; ++s) store(to + (r * n + s) * plane, u[s]);
    }
  }
}

// The gradients of some read channels' filters leave Winograd's domain, for one vector of written
// channels: element (i, j) of a filter's is at (i * (m + 2) + j) * plane + filter * pitch.
template <class S, class T, int m>
void collect_filters(const WinogradPlan& plan, const T* from, int64_t pitch, int64_t plane,
                     S* weight, int64_t filters, int64_t channels) {
  constexpr int n = m + 2;
  const int64_t (&strides)[4] = plan.weight_strides;
  Taps<T> taps;
  taps.arrange(strides);
  for (int64_t filter = 0; filter < filters; ++filter, from += pitch) {
    Vector<T> columns[3][n];
    for (int j = 0; j < n; ++j) {
      Vector<T> s[n], w[3];
#pragma GCC unroll 6
      for (int i = 0; i < n; ++i) s[i] = load(from + (i * n + j) * plane);
      Winograd<m>::template collect<T>(s, w);
      for (int a = 0; a < 3; ++a) columns[a][j] = w[a];
    }
    for (int a = 0; a < 3; ++a) {
      Vector<T> w[3];
      Winograd<m>::template collect<T>(columns[a], w);
      for (int b = 0; b < 3; ++b) store(taps.at(filter, a * 3 + b), w[b]);
    }
  }
  if (taps.dense())
    return store_channels(weight, 1, strides[0], taps.values, filters * 9, channels);
  for (int64_t tap = 0; tap < 9; ++tap)
    store_channels(weight + tap / 3 * strides[2] + tap % 3 * strides[3], strides[1], strides[0],
                   taps.at(0, tap), filters, channels);
}
