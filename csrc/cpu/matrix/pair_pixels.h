// Packing pairs of pixels that lie apart, for grad_weight: channels are lanes.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// `count` pairs: pixel i of member m is at from[m] + i * stride for begin[m] <= i < end[m]; the
// others are outside the image, and count as zero.
struct PairRun {
  const BFloat16* from[2];
  int64_t begin[2], end[2];
  int64_t stride, count;

  // Up to 32 lanes of pair i's member, which lie densely.
  Products lanes(int member, int64_t i, int64_t lane, int64_t lanes) const {
    if (i < begin[member] || i >= end[member]) return Products{};
    return load_products(from[member] + i * stride + lane, lanes);
  }

  // Of members' pixels i to i + 15: those inside, and where they are.
  struct Sixteen {
    const BFloat16* at[2];
    int64_t first[2], last[2];
    bool neighbours;  // all pairs, one after the other as they are packed
  };
  Sixteen sixteen(int64_t i) const {
    Sixteen s;
    for (int m = 0; m < 2; ++m)
      s.at[m] = from[m] + i * stride, s.first[m] = least(16, most(0, begin[m] - i)),
      s.last[m] = most(s.first[m], least(16, end[m] - i));
    s.neighbours = stride == 2 && s.at[1] == s.at[0] + 1 && s.first[0] + s.first[1] == 0 &&
                   s.last[0] + s.last[1] == 32;
    return s;
  }

  // Those pairs of a lane, side by side. Lanes are far from each other: what comes next is fetched.
  Products pairs(const Sixteen& s, int64_t lane_offset) const {
    constexpr int64_t kAhead = 192;
    for (int m = 0; m < 2; ++m) __builtin_prefetch(s.at[m] + lane_offset + kAhead);
    if (s.neighbours) return load_products(s.at[0] + lane_offset, kSquareProducts);
    return make_pairs<0>(pixels(s.at[0] + lane_offset, s.first[0], s.last[0]),
                         pixels(s.at[1] + lane_offset, s.first[1], s.last[1]));
  }

 private:
  // Pixels `first` to `last` of 16 that lie a stride apart.
  Products pixels(const BFloat16* at, int64_t first, int64_t last) const {
    Products products = {};
#if !defined(DILCONV_TWINS)
    if (stride == 1)
      return Products(_mm512_maskz_loadu_epi16(__mmask32((1u << last) - (1u << first)), at));
    if (stride == 2 && first < last) {
      const uint32_t mask = (1u << (2 * last - 1)) - (1u << 2 * first);
      const Pairs every_other = Pairs(_mm512_maskz_loadu_epi16(__mmask32(mask & 0x55555555u), at));
      const Words words = __builtin_convertvector(every_other, Words);
      __builtin_memcpy(&products, &words, sizeof words);
      return products;
    }
#endif
    for (int64_t k = first; k < last; ++k) products[k] = at[k * stride].bits;
    return products;
  }
};

// The vectors' operand: a pair's 16 lanes side by side. Pairs are `distance` elements apart, every
// 16 lanes' `block`; of lanes that do not lie densely there are at most 16.
inline void pack_pair_vectors(BFloat16* to, int64_t distance, int64_t block, const PairRun& run,
                              int64_t lane_stride, int64_t lanes) {
  if (lane_stride == 1) {
    for (int64_t i = 0; i < run.count; ++i, to += distance)
      for (int64_t lane = 0; lane < lanes; lane += kSquareProducts) {
        const int64_t count = least(kSquareProducts, lanes - lane);
        const Products first = run.lanes(0, i, lane, count), second = run.lanes(1, i, lane, count);
        BFloat16* at = to + lane / kSquareLanes * block;
        store_products(at, make_pairs<0>(first, second), kSquareProducts);
        if (count > kSquareLanes)
          store_products(at + block, make_pairs<1>(first, second), kSquareProducts);
      }
    return;
  }
  for (int64_t i = 0; i < run.count; i += kSquareLanes) {
    Pairs square[kSquareLanes] = {};
    const PairRun::Sixteen some = run.sixteen(i);
    for (int64_t lane = 0; lane < lanes; ++lane)
      square[lane] = Pairs(run.pairs(some, lane * lane_stride));
    transpose(square);
    for (int64_t k = 0; k < least(kSquareLanes, run.count - i); ++k)
      store_products(to + (i + k) * distance, Products(square[k]), kSquareProducts);
  }
}

// The rows' operand: a lane's pairs side by side, at most 16. Lanes are `distance` elements apart,
// every 16 lanes `block`; of lanes that do not lie densely there are at most 16. Units of several
// rows have zeros after the last lane.
inline void pack_pair_rows(BFloat16* to, int64_t distance, int64_t block, const PairRun& run,
                           int64_t lane_stride, int64_t lanes) {
  const auto rows = [](int64_t left) {
    return kShape.row_unit > 1 ? kSquareLanes : least(kSquareLanes, left);
  };
  if (lane_stride != 1) {
    const PairRun::Sixteen all = run.sixteen(0);
    for (int64_t lane = 0; lane < rows(lanes); ++lane)
      store_products(to + lane * distance,
                     lane < lanes ? run.pairs(all, lane * lane_stride) : Products{}, 2 * run.count);
    return;
  }
  for (int64_t lane = 0; lane < lanes; lane += kSquareProducts) {
    const int64_t count = least(kSquareProducts, lanes - lane);
    Pairs low[kSquareLanes] = {}, high[kSquareLanes] = {};
    for (int64_t i = 0; i < run.count; ++i) {
      const Products first = run.lanes(0, i, lane, count), second = run.lanes(1, i, lane, count);
      low[i] = Pairs(make_pairs<0>(first, second));
      if (count > kSquareLanes) high[i] = Pairs(make_pairs<1>(first, second));
    }
    BFloat16* at = to + lane / kSquareLanes * block;
    store_rows(at, distance, low, rows(count), 2 * run.count);
    if (count > kSquareLanes)
      store_rows(at + block, distance, high, rows(count - kSquareLanes), 2 * run.count);
  }
}
