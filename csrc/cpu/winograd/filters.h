// The weights' way into Winograd's domain.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

constexpr int64_t kFilters = 16;  // read channels whose filters are transformed together

// The taps of some read channels' filters, in vectors of written channels, in the order in which
// they lie in the weight.
template <class T, class Form>
struct Taps {
  static constexpr int taps = Form::taps, width = Form::W::taps;
  T values[kFilters * taps * kLanes<T>];
  int64_t filter_step, tap_step;  // in vectors

  void arrange(const int64_t (&strides)[4]) {
    const bool adjacent = strides[1] == taps && strides[2] == width && strides[3] == 1;
    filter_step = adjacent ? taps : 1;
    tap_step = adjacent ? 1 : kFilters;
  }
  bool dense() const { return tap_step == 1; }
  T* at(int64_t filter, int64_t tap) {
    return values + (filter * filter_step + tap * tap_step) * kLanes<T>;
  }
};

template <class S, class T, class Form>
void load_taps(const WinogradPlan& plan, const S* from, int64_t filters, int64_t channels,
               Taps<T, Form>& taps) {
  const int64_t (&strides)[4] = plan.weight_strides;
  taps.arrange(strides);
  if (channels < kLanes<T>) clear(taps.values, kFilters * Form::taps * kLanes<T>);
  if (taps.dense())
    return load_channels(taps.values, from, filters * Form::taps, channels, 1, strides[0]);
  for (int64_t tap = 0; tap < Form::taps; ++tap)
    load_channels(taps.at(0, tap),
                  from + tap / Form::W::taps * strides[2] + tap % Form::W::taps * strides[3],
                  filters, channels, strides[1], strides[0]);
}

// The filter transform of read channels `filters` and the vector of written channels that starts
// with `channel`: plane p of a filter goes to p * plane + filter * pitch.
template <class S, class T, class Form>
void transform_filters(const WinogradPlan& plan, const S* weight, const Range& filters,
                       int64_t channel, T* to, int64_t pitch, int64_t plane) {
  using H = typename Form::H;
  using W = typename Form::W;
  Taps<T, Form> taps;
  load_taps<S, T, Form>(
      plan, weight + channel * plan.weight_strides[0] + filters.begin * plan.weight_strides[1],
      filters.end - filters.begin, least(kLanes<T>, plan.written_channels - channel), taps);
  for (int64_t filter = 0; filter < filters.end - filters.begin; ++filter, to += pitch) {
    Vector<T> columns[W::taps][H::products];
    for (int b = 0; b < W::taps; ++b) {
      Vector<T> w[H::taps];
      for (int a = 0; a < H::taps; ++a) {
        const int64_t tap = a * W::taps + b;
        w[a] = load(taps.at(filter, plan.flipped ? Form::taps - 1 - tap : tap));
      }
      H::template filter<T>(w, columns[b]);
    }
#pragma GCC unroll 6
    for (int r = 0; r < H::products; ++r) {
      Vector<T> w[W::taps], u[W::products];
#pragma GCC unroll 5
      for (int b = 0; b < W::taps; ++b) w[b] = columns[b][r];
      W::template filter<T>(w, u);
#pragma GCC unroll 6
      for (int s = 0; s < W::products; ++s) store(to + (r * W::products + s) * plane, u[s]);
    }
  }
}

// The gradients of some read channels' filters leave Winograd's domain, for one vector of written
// channels: plane p of a filter's is at p * plane + filter * pitch.
template <class S, class T, class Form>
void collect_filters(const WinogradPlan& plan, const T* from, int64_t pitch, int64_t plane,
                     S* weight, int64_t filters, int64_t channels) {
  using H = typename Form::H;
  using W = typename Form::W;
  const int64_t (&strides)[4] = plan.weight_strides;
  Taps<T, Form> taps;
  taps.arrange(strides);
  for (int64_t filter = 0; filter < filters; ++filter, from += pitch) {
    Vector<T> rows[H::taps][W::products];
    for (int j = 0; j < W::products; ++j) {
      Vector<T> s[H::products], w[H::taps];
#pragma GCC unroll 6
      for (int i = 0; i < H::products; ++i) s[i] = load(from + (i * W::products + j) * plane);
      H::template collect<T>(s, w);
      for (int a = 0; a < H::taps; ++a) rows[a][j] = w[a];
    }
    for (int a = 0; a < H::taps; ++a) {
      Vector<T> w[W::taps];
      W::template collect<T>(rows[a], w);
      for (int b = 0; b < W::taps; ++b) store(taps.at(filter, a * W::taps + b), w[b]);
    }
  }
  if (taps.dense())
    return store_channels(weight, 1, strides[0], taps.values, filters * Form::taps, channels);
  for (int64_t tap = 0; tap < Form::taps; ++tap)
    store_channels(weight + tap / Form::W::taps * strides[2] + tap % Form::W::taps * strides[3],
                   strides[1], strides[0], taps.at(0, tap), filters, channels);
}
