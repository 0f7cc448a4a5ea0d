// Depthwise, vectors of channels: a vector holds neighbouring channels of a pixel, and a register
// tile neighbouring pixels, so that each weight that is loaded serves all of them.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Pixels of a sample, from `row` and `column` on: where the first one's channels are, and the
// distances between rows and columns.
template <class T>
struct PixelView {
  T* first;
  int64_t row, column;
  int64_t row_pitch, column_pitch;

  T* at(int64_t i, int64_t j) const {
    return first + (i - row) * row_pitch + (j - column) * column_pitch;
  }
};

// A sample of a tensor whose channels lie densely, from `channel` on.
template <class T>
PixelView<T> sample_pixels(T* tensor, const int64_t (&strides)[4], int64_t n, int64_t channel) {
  return {tensor + n * strides[0] + channel, 0, 0, strides[2], strides[3]};
}

inline bool inside(int64_t position, int64_t size) { return uint64_t(position) < uint64_t(size); }

// Positions of a span, [begin, end).
struct Part {
  int64_t begin, end;
};

// A rectangle of an image: rows and columns.
struct Box {
  Part h, w;
  int64_t rows() const { return h.end - h.begin; }
  int64_t columns() const { return w.end - w.begin; }
};

// The tiles of the positions that are written.
class DepthwiseTiles {
 protected:
  explicit DepthwiseTiles(const DepthwisePlan& plan) : p_(plan) {
    for (int axis = 0; axis < 2; ++axis)
      tiles_[axis] = (plan.written_size[axis] + plan.tile[axis] - 1) / plan.tile[axis];
  }

  Box tile_box(int64_t index) const {
    const int64_t top = index / tiles_[1] * p_.tile[0], left = index % tiles_[1] * p_.tile[1];
    return {{top, least(p_.written_size[0], top + p_.tile[0])},
            {left, least(p_.written_size[1], left + p_.tile[1])}};
  }

  // use(sample, box) for the tiles of all samples that a split of the weight's gradient sums.
  template <class Use>
  void each_of_split(int64_t split, const Use& use) const {
    const int64_t tiles = tiles_[0] * tiles_[1], all = p_.batch * tiles;
    const Cut units(all, most(1, (all + p_.splits - 1) / p_.splits));
    if (split >= units.parts) return;
    for (int64_t u = units.begin(split); u < units.begin(split + 1); ++u)
      use(u / tiles, tile_box(u % tiles));
  }

  const DepthwisePlan& p_;
  int64_t tiles_[2];
};

// The part of a span that is written in [begin, end).
inline Part part_of(const Span& span, int64_t begin, int64_t end) {
  const auto first_from = [&](int64_t position) {
    return position <= span.begin
               ? 0
               : least(span.count, (position - span.begin + span.step - 1) / span.step);
  };
  return {first_from(begin), first_from(end)};
}

// Taps of a strip of written pixels, neighbours along the kernel's row: where the first of them
// reads for the first pixel, and its weight, both as distances. The pixels [first, last) of the
// strip are those for which it reads inside the row.
struct StripTaps {
  int64_t read, weight;
  int64_t first, last;
};

// The sums of a strip stay in registers, with kSharedTaps weights and a vector that is read.
constexpr int kStripPixels = kMaxRows == 8 ? 14 : 8;
constexpr int kSharedTaps = 4;

// What strips of pixels of a region read and write, for conv2d or grad_input.
template <class S, class T>
class StripGather {
 protected:
  StripGather(const DepthwisePlan& plan, const Region& region, const PixelView<const S>& read,
              const PixelView<S>& written, const T* weights, int64_t tap_pitch, const T* starts)
      : p_(plan),
        region_(region),
        read_(read),
        written_(written),
        weights_(weights),
        starts_(starts),
        tap_pitch_(tap_pitch) {
    space(1);
  }

  // Pixels of a strip are `apart` written positions from each other.
  void space(int64_t apart) {
    apart_ = apart;
    step_ = apart * region_.w.read_step * read_.column_pitch;
    written_step_ = apart * region_.w.step * written_.column_pitch;
  }

  // Of kernel row a, column b; the strip has `count` pixels from `begin` on.
  StripTaps strip_tap(int64_t a, int64_t b, int64_t begin, int64_t count) const {
    const Tap &h = region_.h.taps[a], &w = region_.w.taps[b];
    const int64_t step = apart_ * region_.w.read_step, size = p_.read_size[1];
    const int64_t column = w.origin + begin * region_.w.read_step;
    const int64_t first = column >= 0 ? 0 : (step - 1 - column) / step;
    const int64_t last = column >= size ? 0 : least(count, (size - 1 - column) / step + 1);
    return {h.origin * read_.row_pitch + column * read_.column_pitch,
            (h.kernel * p_.kernel[1] + w.kernel) * tap_pitch_, first, last};
  }

  // Calls use(i, kernel rows, from, to) for rows i of the strip that begins at `begin`: with the
  // kernel rows that read inside the image, where the row's taps count from, and the first pixel.
  template <class Use>
  __attribute__((always_inline)) void each_row(Part rows, int64_t begin, const Use& use) const {
    const Span &h = region_.h, &w = region_.w;
    for (int64_t i = rows.begin; i < rows.end; ++i)
      use(i, kernel_rows(i), read_.at(i * h.read_step, 0),
          written_.at(h.begin + i * h.step, w.begin + begin * w.step));
  }

  const DepthwisePlan& p_;
  const Region& region_;
  const PixelView<const S>& read_;
  const PixelView<S>& written_;
  const T* weights_;
  const T* starts_;
  int64_t tap_pitch_, apart_, step_, written_step_;

 private:
  // Neighbours, as their origins are monotone.
  Part kernel_rows(int64_t i) const {
    const Span& h = region_.h;
    const auto reads = [&](int64_t a) {
      return inside(h.taps[a].origin + i * h.read_step, p_.read_size[0]);
    };
    Part part = {0, h.tap_count};
    while (part.begin < part.end && !reads(part.begin)) ++part.begin;
    while (part.begin < part.end && !reads(part.end - 1)) --part.end;
    return part;
  }
};

// conv2d or grad_input of a region.
//
// Pixels of a strip are as far apart as neighbouring taps are, where rows are long enough for that:
// then a vector that is read serves kSharedTaps taps. The taps are listed once for all rows and
// channels of a strip, row by row of the kernel, and in the order of the columns they read, which
// is the order of the sums: those that read inside for every pixel, by fours and the rest of the
// row, and before and after them those that do so for some pixels only.
template <class S, class T>
class PixelGather : public StripGather<S, T> {
  using Base = StripGather<S, T>;
  using Base::apart_, Base::p_, Base::read_, Base::region_, Base::starts_, Base::step_;
  using Base::tap_pitch_, Base::weights_, Base::written_, Base::written_step_;

 public:
  // weights: [tap][channel]. starts: what sums start from; null: from what is written. far: the
  // views are not in the cache. lists: 4 * kernel taps.
  PixelGather(const DepthwisePlan& plan, const Region& region, const PixelView<const S>& read,
              const PixelView<S>& written, const T* weights, int64_t tap_pitch, const T* starts,
              bool far, StripTaps* lists)
      : Base(plan, region, read, written, weights, tap_pitch, starts),
        far_(far),
        fours_(lists),
        rests_(fours_ + plan.kernel[0] * plan.kernel[1]),
        heads_(rests_ + plan.kernel[0] * plan.kernel[1]),
        tails_(heads_ + plan.kernel[0] * plan.kernel[1]) {
    const Span& w = region.w;
    if (w.tap_count > 1) {
      const int64_t distance = w.taps[1].origin - w.taps[0].origin;
      reversed_ = distance < 0;
      const int64_t apart = (reversed_ ? -distance : distance) / w.read_step;
      // Reading far apart costs more of the cache than few taps save.
      const bool worthwhile = apart == 1 || (apart <= 8 && w.tap_count >= (apart == 2 ? 5 : 7) &&
                                             apart * kStripPixels <= 2 * w.count);
      sharing_ = distance % w.read_step == 0 && worthwhile;
      if (sharing_) this->space(apart);
      weight_step_ = (w.taps[1].kernel - w.taps[0].kernel) * tap_pitch * (reversed_ ? -1 : 1);
    }
  }

  // `channels` channels, at least as many as a vector holds; the last vector may overlap the one
  // before.
  void run(Part rows, Part columns, int64_t channels) {
    for (int64_t r = 0; r < least(apart_, columns.end - columns.begin); ++r) {
      const Cut strips((columns.end - columns.begin - r + apart_ - 1) / apart_, kStripPixels);
      for (int64_t s = 0; s < strips.parts; ++s) {
        const int64_t begin = columns.begin + r + strips.begin(s) * apart_;
        list_taps(begin, strips.size(s));
        run_strip<kStripPixels>(strips.size(s), rows, begin, channels);
      }
    }
  }

 private:
  // Entries of a list that belong to one row of the kernel.
  struct PerRow {
    int64_t heads, fours, rests, tails;
  };

  void list_taps(int64_t begin, int64_t count) {
    StripTaps *heads = heads_, *fours = fours_, *rests = rests_, *tails = tails_;
    const int64_t taps = region_.w.tap_count;
    rest_ = 0;
    for (int64_t a = 0; a < region_.h.tap_count; ++a) {
      int64_t waiting = 0;  // taps from `first` on that are in no list yet
      StripTaps first = {};
      bool none_full = true;
      for (int64_t b = 0; b < taps; ++b) {
        const StripTaps tap = this->strip_tap(a, reversed_ ? taps - 1 - b : b, begin, count);
        if (tap.first >= tap.last) continue;
        if (tap.last - tap.first < count) {
          *(none_full ? heads : tails)++ = tap;
          continue;
        }
        none_full = false;
        if (waiting++ == 0) first = tap;
        if (waiting < kSharedTaps && sharing_) continue;
        *(sharing_ ? fours : rests)++ = first;
        waiting = 0;
      }
      if (waiting > 0) *rests++ = first;
      rest_ = sharing_ ? waiting : 1;
    }
    const int64_t rows = most(1, region_.h.tap_count);
    per_row_ = {(heads - heads_) / rows, (fours - fours_) / rows, (rests - rests_) / rows,
                (tails - tails_) / rows};
    one_kind_ = per_row_.heads + per_row_.tails == 0 && (per_row_.fours == 0 || rest_ == 0);
  }

  template <int Q>
  void run_strip(int64_t count, Part rows, int64_t begin, int64_t channels) const {
    if constexpr (Q > 1)
      if (count < Q) return run_strip<Q - 1>(count, rows, begin, channels);
    strip<Q>(rows, begin, channels);
  }

  template <int Q>
  __attribute__((noinline)) void strip(Part rows, int64_t begin, int64_t channels) const {
    this->each_row(rows, begin, [&](int64_t i, Part a, const S* from, S* to) {
      const S* ahead = far_ ? next_row(i, begin) : nullptr;
      const S* next = far_ && i + 1 < rows.end ? to + region_.h.step * written_.row_pitch : nullptr;
      for (int64_t at = 0; at < channels; at += kLanes<T>) {
        const int64_t c = least(at, channels - kLanes<T>);
        if (ahead)
#pragma GCC unroll 14
          for (int q = 0; q < Q; ++q) __builtin_prefetch(ahead + c + q * step_);
        if (next)
#pragma GCC unroll 14
          for (int q = 0; q < Q; ++q) __builtin_prefetch(next + c + q * written_step_, 1);
        pixels<Q>(a, from, to, c);
      }
    });
  }

  // What row i + 1 reads for the first time.
  const S* next_row(int64_t i, int64_t begin) const {
    const Span &h = region_.h, &w = region_.w;
    if (h.tap_count == 0 || w.tap_count == 0) return nullptr;
    const int64_t one = h.taps[0].origin, other = h.taps[h.tap_count - 1].origin;
    const int64_t row = most(one, other) + (i + 1) * h.read_step;
    if (row >= p_.read_size[0] || row < 0) return nullptr;
    const int64_t left = w.taps[reversed_ ? w.tap_count - 1 : 0].origin + begin * w.read_step;
    return read_.at(row, most(0, left));
  }

  template <int Q>
  __attribute__((always_inline)) void pixels(Part rows, const S* from, S* to, int64_t c) const {
    Vector<T> total[Q];
    if (starts_) {
#pragma GCC unroll 14
      for (int q = 0; q < Q; ++q) total[q] = load(starts_ + c);
    } else {
#pragma GCC unroll 14
      for (int q = 0; q < Q; ++q) total[q] = load_widened<T>(to + c + q * written_step_);
    }
    const S* read = from + c;
    const T* weights = weights_ + c;
    const int64_t together = one_kind_ ? most(1, rows.end - rows.begin) : 1;
    for (int64_t a = rows.begin; a < rows.end; a += together) {
      const Part some = {a, a + together};
      add_parts(heads_, per_row_.heads, some, read, weights, total);
      add<kSharedTaps>(fours_, per_row_.fours, some, read, weights, total);
      static_assert(kSharedTaps == 4, "the cases below");
      if (rest_ == 1)
        add<1>(rests_, per_row_.rests, some, read, weights, total);
      else if (rest_ == 2)
        add<2>(rests_, per_row_.rests, some, read, weights, total);
      else if (rest_ == 3)
        add<3>(rests_, per_row_.rests, some, read, weights, total);
      add_parts(tails_, per_row_.tails, some, read, weights, total);
    }
#pragma GCC unroll 14
    for (int q = 0; q < Q; ++q) store_narrowed<T>(to + c + q * written_step_, total[q]);
  }

  // B neighbouring taps at a time.
  template <int B, int Q>
  void add(const StripTaps* list, int64_t per_row, Part rows, const S* read, const T* weights,
           Vector<T> (&total)[Q]) const {
    const int64_t step = step_;
    for (const StripTaps* taps = list + rows.begin * per_row; taps < list + rows.end * per_row;
         ++taps) {
      Vector<T> weight[B];
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) weight[b] = load(weights + taps->weight + b * weight_step_);
      const S* at[(Q + B + 2) / 4];
#pragma GCC unroll 5
      for (int i = 0; i < (Q + B + 2) / 4; ++i) at[i] = separate(read + taps->read + 4 * i * step);
#pragma GCC unroll 17
      for (int v = 0; v < Q + B - 1; ++v) {
        const Vector<T> value = load_widened<T>(at[v / 4] + v % 4 * step);
#pragma GCC unroll 4
        for (int b = 0; b < B; ++b)
          if (v >= b && v - b < Q) total[v - b] += value * weight[b];
      }
    }
  }

  template <int Q>
  void add_parts(const StripTaps* list, int64_t per_row, Part rows, const S* read, const T* weights,
                 Vector<T> (&total)[Q]) const {
    const int64_t step = step_;
    for (const StripTaps* tap = list + rows.begin * per_row; tap < list + rows.end * per_row;
         ++tap) {
      const Vector<T> weight = load(weights + tap->weight);
      const S* at = read + tap->read;
#pragma GCC unroll 14
      for (int q = 0; q < Q; ++q)
        if (q >= tap->first && q < tap->last) total[q] += load_widened<T>(at + q * step) * weight;
    }
  }

  int64_t weight_step_ = 0;
  bool far_;  // the tensors are not in the cache: fetch a row ahead
  bool sharing_ = false, reversed_ = false;
  StripTaps* fours_;
  StripTaps* rests_;
  StripTaps* heads_;
  StripTaps* tails_;
  PerRow per_row_ = {0, 0, 0, 0};
  bool one_kind_ = false;  // the rows' entries follow each other in one list
  int64_t rest_ = 0;       // taps of an entry of rests_
};
