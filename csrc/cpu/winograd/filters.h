// The weights' way into Winograd's domain.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

constexpr int64_t kFilters = 16;  // read channels whose filters are transformed together, at most

// The elements of some read channels' filters, in vectors of written channels: of all pieces in the
// order in which they lie in the weight if a filter's lie next to each other, else of one piece.
template <class T, class Form>
class Taps {
 public:
  Taps(const WinogradPlan& plan)
      : p_(plan),
        elements_(plan.h.kernel * plan.w.kernel),
        dense_(strides_[2] == plan.w.kernel && strides_[3] == 1),
        together_(strides_[1] == elements_ ? kFilters : 1),
        filters_(dense_ ? most(1, kFilters * Form::taps / most(elements_, Form::taps)) : kFilters) {
  }

  int64_t most_filters() const { return filters_; }

  // Where the taps of a piece of the first filter are; null past the kernel's end. Those of the
  // next are step() further.
  void find(int64_t piece, T* (&taps)[Form::taps]) {
    for (int64_t tap = 0; tap < Form::taps; ++tap) {
      const int64_t element = element_at(piece, tap);
      taps[tap] = element < 0 ? nullptr : dense_ ? vector(element) : vector(tap * kFilters);
    }
  }
  int64_t step() const { return (dense_ ? elements_ : 1) * kLanes<T>; }

  // For each piece, in order, before its taps are used, or after they are set.
  template <class S>
  void read(int64_t piece, const S* from, int64_t filters, int64_t channels) {
    if (piece == 0 && channels < kLanes<T>) clear(values_, kFilters * Form::taps * kLanes<T>);
    if (!dense_)
      return each_tap(piece, [&](int64_t offset, T* values) {
        load_channels(values, from + offset, filters, channels, strides_[1], strides_[0]);
      });
    for (int64_t f = 0; piece == 0 && f < filters; f += together_)
      load_channels(vector(f * elements_), from + f * strides_[1],
                    least(together_, filters - f) * elements_, channels, 1, strides_[0]);
  }
  template <class S>
  void write(int64_t piece, S* to, int64_t filters, int64_t channels) {
    if (!dense_)
      return each_tap(piece, [&](int64_t offset, const T* values) {
        store_channels(to + offset, strides_[1], strides_[0], values, filters, channels);
      });
    for (int64_t f = 0; piece + 1 == p_.pieces && f < filters; f += together_)
      store_channels(to + f * strides_[1], 1, strides_[0], vector(f * elements_),
                     least(together_, filters - f) * elements_, channels);
  }

 private:
  // All elements of one filter fit.
  static_assert(kWinogradPieces <= kFilters, "or a filter of many pieces does not");

  // The kernel's element that a piece's tap is; -1 past its end.
  int64_t element_at(int64_t piece, int64_t tap) const {
    const int64_t i = piece / p_.w.pieces * Form::H::taps + tap / Form::W::taps;
    const int64_t j = piece % p_.w.pieces * Form::W::taps + tap % Form::W::taps;
    if (i >= p_.h.kernel || j >= p_.w.kernel) return -1;
    const int64_t element = i * p_.w.kernel + j;
    return p_.flipped ? elements_ - 1 - element : element;
  }

  template <class Use>
  void each_tap(int64_t piece, const Use& use) {
    for (int64_t tap = 0; tap < Form::taps; ++tap) {
      const int64_t element = element_at(piece, tap);
      if (element < 0) continue;
      use(element / p_.w.kernel * strides_[2] + element % p_.w.kernel * strides_[3],
          vector(tap * kFilters));
    }
  }

  T* vector(int64_t index) { return values_ + index * kLanes<T>; }

  T values_[kFilters * Form::taps * kLanes<T>];
  const WinogradPlan& p_;
  const int64_t (&strides_)[4] = p_.weight_strides;
  int64_t elements_;
  bool dense_;        // a filter's elements lie next to each other
  int64_t together_;  // filters that do, too
  int64_t filters_;
};

// The filter transform of read channels `filters` and the vector of written channels that starts
// with `channel`: plane p of a filter's piece goes to p * to_plane + piece * to_piece + filter *
// pitch.
template <class S, class T, class Form>
void transform_filters(const WinogradPlan& plan, const S* weight, const Range& filters,
                       int64_t channel, T* to, int64_t pitch, int64_t to_piece, int64_t to_plane) {
  using H = typename Form::H;
  using W = typename Form::W;
  Taps<T, Form> taps(plan);
  for (int64_t first = filters.begin; first < filters.end; first += taps.most_filters()) {
    const int64_t count = least(taps.most_filters(), filters.end - first);
    for (int64_t piece = 0; piece < plan.pieces; ++piece) {
      taps.read(piece, weight + channel * plan.weight_strides[0] + first * plan.weight_strides[1],
                count, least(kLanes<T>, plan.written_channels - channel));
      T* at[Form::taps];
      taps.find(piece, at);
      T* out = to + piece * to_piece + (first - filters.begin) * pitch;
      for (int64_t filter = 0; filter < count; ++filter, out += pitch) {
        Vector<T> columns[W::taps][H::products];
        for (int b = 0; b < W::taps; ++b) {
          Vector<T> w[H::taps];
          for (int a = 0; a < H::taps; ++a) {
            T* tap = at[a * W::taps + b];
            w[a] = tap ? load(tap + filter * taps.step()) : Vector<T>{};
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
          for (int s = 0; s < W::products; ++s) store(out + (r * W::products + s) * to_plane, u[s]);
        }
      }
    }
  }
}

// The gradients of some read channels' filters leave Winograd's domain, for one vector of written
// channels: plane p of a filter's piece is at p * from_plane + piece * from_piece + filter * pitch.
template <class S, class T, class Form>
void collect_filters(const WinogradPlan& plan, const T* from, int64_t pitch, int64_t from_piece,
                     int64_t from_plane, S* weight, int64_t filters, int64_t channels) {
  using H = typename Form::H;
  using W = typename Form::W;
  Taps<T, Form> taps(plan);
  for (int64_t first = 0; first < filters; first += taps.most_filters()) {
    const int64_t count = least(taps.most_filters(), filters - first);
    for (int64_t piece = 0; piece < plan.pieces; ++piece) {
      T* at[Form::taps];
      taps.find(piece, at);
      const T* in = from + piece * from_piece + first * pitch;
      for (int64_t filter = 0; filter < count; ++filter, in += pitch) {
        Vector<T> rows[H::taps][W::products];
        for (int j = 0; j < W::products; ++j) {
          Vector<T> s[H::products], w[H::taps];
#pragma GCC unroll 6
          for (int i = 0; i < H::products; ++i)
            s[i] = load(in + (i * W::products + j) * from_plane);
          H::template collect<T>(s, w);
          for (int a = 0; a < H::taps; ++a) rows[a][j] = w[a];
        }
        for (int a = 0; a < H::taps; ++a) {
          Vector<T> w[W::taps];
          W::template collect<T>(rows[a], w);
          for (int b = 0; b < W::taps; ++b)
            if (T* tap = at[a * W::taps + b]) store(tap + filter * taps.step(), w[b]);
        }
      }
      taps.write(piece, weight + first * plan.weight_strides[1], count, channels);
    }
  }
}
