// Groups of a few channels, several to a vector: as depthwise with vectors of channels, but that
// every channel of a group is multiplied with all of them. Permutations bring them to its lane.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Channels of a group that are worked on together.
constexpr int kMixedChannels = 4;

// picked[m]: for every lane, channel first + m of its group.
template <class T, int M>
struct GroupLanes {
  LaneIndex<T> picked[M];

  GroupLanes(int64_t group, int64_t first) {
    for (int m = 0; m < M; ++m)
      for (int l = 0; l < kLanes<T>; ++l) picked[m][l] = int(l / group * group + first) + m;
  }
};

// conv2d or grad_input of a region: strips of pixels.
template <class S, class T>
class GroupGather : public StripGather<S, T> {
  using Base = StripGather<S, T>;
  using Base::p_, Base::region_, Base::starts_, Base::step_, Base::weights_, Base::written_step_;

 public:
  // weights: [channel of the group that is read][tap][channel], at distances mix_pitch and
  // tap_pitch. starts: what sums start from. taps: as many as the kernel has.
  GroupGather(const DepthwisePlan& plan, const Region& region, const PixelView<const S>& read,
              const PixelView<S>& written, const T* weights, int64_t mix_pitch, int64_t tap_pitch,
              const T* starts, StripTaps* taps)
      : Base(plan, region, read, written, weights, tap_pitch, starts),
        mix_pitch_(mix_pitch),
        taps_(taps) {}

  // `channels` channels, whole groups and at least as many as a vector holds; the last vector may
  // overlap the one before.
  void run(Part rows, Part columns, int64_t channels) {
    const Cut strips(columns.end - columns.begin, kStripPixels);
    for (int64_t s = 0; s < strips.parts; ++s) {
      const int64_t begin = columns.begin + strips.begin(s);
      list_taps(begin, strips.size(s));
      run_strip<kStripPixels>(strips.size(s), rows, begin, channels);
    }
  }

 private:
  void list_taps(int64_t begin, int64_t count) {
    StripTaps* end = taps_;
    for (int64_t a = 0; a < region_.h.tap_count; ++a)
      for (int64_t b = 0; b < region_.w.tap_count; ++b) {
        const StripTaps tap = this->strip_tap(a, b, begin, count);
        if (tap.first < tap.last) *end++ = tap;
      }
    per_row_ = (end - taps_) / most(1, region_.h.tap_count);
  }

  template <int Q>
  void run_strip(int64_t count, Part rows, int64_t begin, int64_t channels) const {
    if constexpr (Q > 1)
      if (count < Q) return run_strip<Q - 1>(count, rows, begin, channels);
    if (p_.group < kMixedChannels)
      strip<Q, 2>(rows, begin, channels);
    else
      strip<Q, kMixedChannels>(rows, begin, channels);
  }

  template <int Q, int M>
  __attribute__((noinline)) void strip(Part rows, int64_t begin, int64_t channels) const {
    this->each_row(rows, begin, [&](int64_t, Part a, const S* from, S* to) {
      for (int64_t at = 0; at < channels; at += kLanes<T>)
        pixels<Q, M>(a, from, to, least(at, channels - kLanes<T>));
    });
  }

  template <int Q, int M>
  __attribute__((always_inline)) void pixels(Part rows, const S* from, S* to, int64_t c) const {
    Vector<T> total[Q];
#pragma GCC unroll 14
    for (int q = 0; q < Q; ++q) total[q] = load(starts_ + c);
    for (int64_t first = 0; first < p_.group; first += M) {
      const GroupLanes<T, M> lanes(p_.group, first);
      const T* weights = weights_ + first * mix_pitch_ + c;
      const StripTaps* end = taps_ + rows.end * per_row_;
      for (const StripTaps* tap = taps_ + rows.begin * per_row_; tap < end; ++tap)
        if (tap->first == 0 && tap->last == Q)
          add<Q, M, false>(*tap, lanes, weights, from + c, total);
        else
          add<Q, M, true>(*tap, lanes, weights, from + c, total);
    }
#pragma GCC unroll 14
    for (int q = 0; q < Q; ++q) store_narrowed<T>(to + c + q * written_step_, total[q]);
  }

  template <int Q, int M, bool checked>
  __attribute__((always_inline)) void add(const StripTaps& tap, const GroupLanes<T, M>& lanes,
                                          const T* weights, const S* from,
                                          Vector<T> (&total)[Q]) const {
    Vector<T> weight[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) weight[m] = load(weights + m * mix_pitch_ + tap.weight);
    const S* at = from + tap.read;
#pragma GCC unroll 14
    for (int q = 0; q < Q; ++q) {
      if (checked && (q < tap.first || q >= tap.last)) continue;
      const Vector<T> value = in_register(load_widened<T>(at + q * step_));
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) total[q] += permute_lanes(value, lanes.picked[m]) * weight[m];
    }
  }

  int64_t mix_pitch_;
  StripTaps* taps_;  // that read inside the image, row by row of the kernel
  int64_t per_row_ = 0;
};
