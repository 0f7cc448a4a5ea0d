// The weights' way into Winograd's domain.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

constexpr int64_t kFilters = 16;  // read channels whose filters are transformed together, at most

// The elements of some read channels' filters, in vectors of written channels, in the order in
// which they lie in the weight.
template <class T, class Form>
class Taps {
 public:
  Taps(const WinogradPlan& plan)
      : p_(plan),
        elements_(plan.h.kernel * plan.w.kernel),
        filters_(most(1, kFilters * Form::taps / most(elements_, Form::taps))),
        dense_(strides_[2] == plan.w.kernel && strides_[3] == 1),
        together_(strides_[1] == elements_ ? filters_ : 1),
        filter_step_(dense_ ? elements_ : 1),
        element_step_(dense_ ? 1 : filters_) {}

  int64_t most_filters() const { return filters_; }

  // Where the taps of a piece of the first filter are; null past the kernel's end. Those of the
  // next are step() further.
  void find(int64_t piece, T* (&taps)[Form::H::taps][Form::W::taps]) {
    for (int64_t a = 0; a < Form::H::taps; ++a)
      for (int64_t b = 0; b < Form::W::taps; ++b) {
        const int64_t i = piece / p_.w.pieces * Form::H::taps + a;
        const int64_t j = piece % p_.w.pieces * Form::W::taps + b;
        const int64_t element = i * p_.w.kernel + j;
        taps[a][b] = i < p_.h.kernel && j < p_.w.kernel
                         ? vector(p_.flipped ? elements_ - 1 - element : element)
                         : nullptr;
      }
  }
  int64_t step() const { return filter_step_ * kLanes<T>; }

  template <class S>
  void read(const S* from, int64_t filters, int64_t channels) {
    if (channels < kLanes<T>) clear(values_, filters_ * elements_ * kLanes<T>);
    for (int64_t f = 0; dense_ && f < filters; f += together_)
      load_channels(values_ + f * step(), from + f * strides_[1],
                    least(together_, filters) * elements_, channels, 1, strides_[0]);
    for (int64_t e = 0; !dense_ && e < elements_; ++e)
      load_channels(vector(e), from + offset(e), filters, channels, strides_[1], strides_[0]);
  }

  template <class S>
  void write(S* to, int64_t filters, int64_t channels) {
    for (int64_t f = 0; dense_ && f < filters; f += together_)
      store_channels(to + f * strides_[1], 1, strides_[0], values_ + f * step(),
                     least(together_, filters) * elements_, channels);
    for (int64_t e = 0; !dense_ && e < elements_; ++e)
      store_channels(to + offset(e), strides_[1], strides_[0], vector(e), filters, channels);
  }

 private:
  T* vector(int64_t element) { return values_ + element * element_step_ * kLanes<T>; }
  int64_t offset(int64_t element) const {
    return element / p_.w.kernel * strides_[2] + element % p_.w.kernel * strides_[3];
  }

  T values_[kFilters * Form::taps * kLanes<T>];
  const WinogradPlan& p_;
  const int64_t (&strides_)[4] = p_.weight_strides;
  int64_t elements_, filters_;
  bool dense_;                          // a filter's elements lie next to each other
  int64_t together_;                    // filters that do, too
  int64_t filter_step_, element_step_;  // in vectors
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
    taps.read(weight + channel * plan.weight_strides[0] + first * plan.weight_strides[1], count,
              least(kLanes<T>, plan.written_channels - channel));
    for (int64_t piece = 0; piece < plan.pieces; ++piece) {
      T* at[H::taps][W::taps];
      taps.find(piece, at);
      T* out = to + piece * to_piece + (first - filters.begin) * pitch;
      for (int64_t filter = 0; filter < count; ++filter, out += pitch) {
        Vector<T> columns[W::taps][H::products];
        for (int b = 0; b < W::taps; ++b) {
          Vector<T> w[H::taps];
          for (int a = 0; a < H::taps; ++a) {
            w[a] = at[a][b] ? load(at[a][b] + filter * taps.step()) : Vector<T>{};
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
      T* at[H::taps][W::taps];
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
            if (at[a][b]) store(at[a][b] + filter * taps.step(), w[b]);
        }
      }
    }
    taps.write(weight + first * plan.weight_strides[1], count, channels);
  }
}
