// The products of kn2row by the direct kernel's register tiles.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// What both arrangements share: operands are widened.
template <class S, class T>
class WideOperands : public Kn2rowOperands<S, T> {
  using Base = Kn2rowOperands<S, T>;

 public:
  // Step by step, the weights of a block's lanes; zero beyond the last.
  void pack(int64_t index) const {
    const int64_t group = index / this->blocks.parts, block = index % this->blocks.parts;
    const int64_t first = this->first_lane(block), width = this->lanes(block);
    T* to = this->weights(group, block);
    for (int64_t k = 0; k < width; ++k) {
      const bool any = first + k < this->total_;
      const S* from = this->weights_of(group, any ? first + k : 0);
      for (int64_t c = 0; c < p_.read_channels; ++c)
        to[c * width + k] = any ? T(widen(from[c * p_.weight_strides[1]])) : T(0);
    }
  }

 protected:
  using Base::p_;

  WideOperands(const Kn2rowPlan& plan, const void* read, const void* weight, int64_t unit,
               int64_t largest)
      : Base(plan, read, weight, plan.tensors.read_channels, unit, largest),
        depths_(p_.read_channels, kPanelDepth) {}

  const Cut depths_;  // of the summation
};

// Rows of a register tile are pixels, whose products are in vectors of lanes.
template <class S, class T>
class LaneProducts : public WideOperands<S, T> {
  using Base = WideOperands<S, T>;
  using Base::p_, Base::depths_;

 public:
  static constexpr int64_t kSegment = 64, kBlockLanes = kMaxVectors * kLanes<T>;

  LaneProducts(const Kn2rowPlan& plan, const void* read, const void* weight)
      : Base(plan, read, weight, kLanes<T>, kMaxVectors) {}

  int64_t scratch_bytes() const { return Scratch(nullptr, *this).bytes; }

  struct Scratch {
    Scratch(char* base, const LaneProducts& k) {
      const int64_t depth = k.p_.read_channels;
      Arena arena(base);
      rows = arena.template take<const T*>(kSegment);
      sums = arena.template take<T*>(kSegment);
      offsets = arena.template take<int64_t>(depth);
      products = arena.template take<T>(round_up(kSegment, kLanes<T>) * kBlockLanes);
      widened = arena.template take<T>(kSame<S, T> ? 0 : kSegment * depth);
      bytes = arena.used();
    }
    const T** rows;
    T** sums;  // of each pixel's products
    int64_t* offsets;
    T* products;
    T* widened;
    int64_t bytes;
  };

  Scratch pixels(int64_t sample, int64_t group, int64_t row, int64_t column, int64_t count, int64_t,
                 char* base) const {
    const Scratch scratch(base, *this);
    const int64_t depth = p_.read_channels;
    const S* from = this->pixel(sample, group, row, column);
    for (int64_t q = 0; q < count; ++q, from += p_.read_strides[3]) {
      scratch.sums[q] = scratch.products + q * kBlockLanes;
      if constexpr (kSame<S, T>) {
        scratch.rows[q] = from;
      } else {
        gather(scratch.widened + q * depth, from, p_.read_strides[1], depth);
        scratch.rows[q] = scratch.widened + q * depth;
      }
    }
    const int64_t step = kSame<S, T> ? p_.read_strides[1] : 1;
    for (int64_t c = 0; c < depth; ++c) scratch.offsets[c] = c * step;
    return scratch;
  }

  void multiply(const Scratch& scratch, int64_t group, int64_t block, int64_t count, T* planes,
                int64_t pitch) const {
    const int64_t vectors = this->blocks.size(block), width = this->lanes(block);
    const Cut tiles(count, kMaxRows);
    for (int64_t d = 0; d < depths_.parts; ++d) {
      const Steps<T> steps = {this->weights(group, block) + depths_.begin(d) * width,
                              depths_.size(d)};
      for (int64_t t = 0; t < tiles.parts; ++t)
        row_tile<T>(int(tiles.size(t)), int(vectors))(
            scratch.rows + tiles.begin(t), scratch.offsets + depths_.begin(d), &steps, 1,
            scratch.sums + tiles.begin(t), 0, width - kLanes<T>, d > 0, nullptr);
    }
    turn_products(planes, pitch, scratch.products, kBlockLanes, width, count);
  }
};

// Rows of a register tile are lanes, whose products are in vectors of pixels.
template <class S, class T>
class PixelProducts : public WideOperands<S, T> {
  using Base = WideOperands<S, T>;
  using Base::p_, Base::depths_;

 public:
  static constexpr int64_t kSegment = 2 * kMaxVectors * kLanes<T>, kBlockLanes = kMaxRows;

  PixelProducts(const Kn2rowPlan& plan, const void* read, const void* weight)
      : Base(plan, read, weight, 1, kMaxRows) {}

  int64_t scratch_bytes() const { return Scratch(nullptr, *this).bytes; }

  struct Scratch {
    Scratch(char* base, const PixelProducts& k) {
      const int64_t depth = k.p_.read_channels;
      Arena arena(base);
      offsets = arena.template take<int64_t>(depth);
      copied = arena.template take<T>(
          k.in_place() ? 0 : depth * round_up(least(kSegment, k.p_.read_size[1]), kLanes<T>));
      bytes = arena.used();
    }
    const T* pixels;
    int64_t* offsets;
    T* copied;
    int64_t bytes;
  };

  Scratch pixels(int64_t sample, int64_t group, int64_t row, int64_t column, int64_t count, int64_t,
                 char* base) const {
    Scratch scratch(base, *this);
    const S* from = this->pixel(sample, group, row, column);
    int64_t step = p_.read_strides[1];
    if constexpr (kSame<S, T>)
      if (in_place()) scratch.pixels = from;
    if (!in_place()) {
      step = round_up(count, kLanes<T>);
      for (int64_t c = 0; c < p_.read_channels; ++c) {
        T* to = scratch.copied + c * step;
        gather(to, from + c * p_.read_strides[1], 1, count);
        clear(to + count, step - count);
      }
      scratch.pixels = scratch.copied;
    }
    for (int64_t c = 0; c < p_.read_channels; ++c) scratch.offsets[c] = c * step;
    return scratch;
  }

  void multiply(const Scratch& scratch, int64_t group, int64_t block, int64_t count, T* planes,
                int64_t pitch) const {
    const int64_t rows = this->lanes(block), vectors = (count + kLanes<T> - 1) / kLanes<T>;
    const Cut tiles(vectors, most_vectors(rows));
    // The last vector in place ends at the last pixel, and begins with some of the one before.
    const int64_t before = in_place() ? vectors * kLanes<T> - count : 0;
    for (int64_t d = 0; d < depths_.parts; ++d) {
      const Segment<T> segment = {this->weights(group, block) + depths_.begin(d) * rows, nullptr,
                                  depths_.size(d)};
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const T* from[kMostVectors];
        T* to[kMostVectors];
        for (int64_t v = tiles.begin(t); v < tiles.begin(t + 1); ++v) {
          from[v - tiles.begin(t)] =
              scratch.pixels + v * kLanes<T> - (v + 1 == vectors ? before : 0);
          to[v - tiles.begin(t)] = planes + v * kLanes<T>;
        }
        vector_tile<T>(int(rows), int(tiles.size(t)))(from, scratch.offsets + depths_.begin(d),
                                                      &segment, 1, to, pitch, d > 0, nullptr);
      }
    }
    if (before == 0) return;
    for (T* last = planes + (vectors - 1) * kLanes<T>; last < planes + rows * pitch; last += pitch)
      store(last, load(last + before));
  }

 private:
  bool in_place() const { return kSame<S, T> && p_.read_size[1] >= kLanes<T>; }
};
