// Packing: 16 lanes by up to 32 products of bfloat16, in pairs of products.
//
// Where a pair is a lane's products 2p and 2p + 1, the rows' operand has a lane's pairs side by
// side, the vectors' operand the lanes of a pair.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

using Pairs = Vector<uint32_t>;
constexpr int kSquareLanes = kLanes<uint32_t>;
constexpr int kSquareProducts = 2 * kSquareLanes;

typedef uint16_t Words __attribute__((vector_size(kVectorBytes / 2)));  // one for each lane
typedef uint16_t Products __attribute__((vector_size(kVectorBytes)));

// sum += even * even + odd * odd, for each lane's pairs.
inline Vector<float> add_products(Vector<float> sum, Pairs a, Pairs b) {
#if !defined(DILCONV_TWINS)
  return Vector<float>(_mm512_dpbf16_ps(__m512(sum), __m512bh(a), __m512bh(b)));
#else
  const Pairs high = Pairs{} + 0xffff0000u;
  return sum + Vector<float>(b << 16) * Vector<float>(a << 16) +
         Vector<float>(b & high) * Vector<float>(a & high);
#endif
}

// The first `count` of 32 elements; the others are zero.
inline Products load_products(const BFloat16* from, int64_t count) {
  Products products = {};
#if !defined(DILCONV_TWINS)
  if (count < kSquareProducts)
    return Products(_mm512_maskz_loadu_epi16(__mmask32((1u << count) - 1), from));
#else
  if (count < kSquareProducts) {
    __builtin_memcpy(&products, from, size_t(2 * count));
    return products;
  }
#endif
  __builtin_memcpy(&products, from, sizeof products);
  return products;
}

inline void store_products(BFloat16* to, Products products, int64_t count) {
#if !defined(DILCONV_TWINS)
  if (count < kSquareProducts)
    return _mm512_mask_storeu_epi16(to, __mmask32((1u << count) - 1), __m512i(products));
#else
  if (count < kSquareProducts) {
    __builtin_memcpy(to, &products, size_t(2 * count));
    return;
  }
#endif
  __builtin_memcpy(to, &products, sizeof products);
}

// to[i * step] = products[i], for i below `count`.
inline void scatter_products(BFloat16* to, int64_t step, Products products, int64_t count) {
  if (step == 1) return store_products(to, products, count);
#if !defined(DILCONV_TWINS)
  if (step == 2) {
    // Words in the low halves of lanes. Others may be written between them meanwhile.
    Words halves[2];
    __builtin_memcpy(halves, &products, sizeof halves);
    for (int half = 0; half < 2 && count > half * kSquareLanes; ++half) {
      const int64_t here = least(kSquareLanes, count - half * kSquareLanes);
      const __mmask32 even = 0x55555555u >> (2 * (kSquareLanes - here));
      _mm512_mask_storeu_epi16(to + half * kSquareProducts, even,
                               _mm512_maskz_cvtepu16_epi32(__mmask16(-1), __m256i(halves[half])));
    }
    return;
  }
#endif
  for (int64_t i = 0; i < count; ++i) to[i * step].bits = products[i];
}

inline void store_words(BFloat16* to, Words words, int64_t count) {
#if !defined(DILCONV_TWINS)
  if (count < kSquareLanes)
    return _mm256_mask_storeu_epi16(to, __mmask16((1u << count) - 1), __m256i(words));
#else
  if (count < kSquareLanes) {
    __builtin_memcpy(to, &words, size_t(2 * count));
    return;
  }
#endif
  __builtin_memcpy(to, &words, sizeof words);
}

#if !defined(DILCONV_TWINS)
template <int half, int... e>
inline Products interleave(Products even, Products odd, Indices<e...>) {
  constexpr int lanes = sizeof...(e);
  return __builtin_shufflevector(even, odd, (half * lanes / 2 + e / 2 + e % 2 * lanes)...);
}

// Lanes' pairs from their even and odd products: of lanes 0 to 15 (half 0), or of the others.
template <int half>
inline Products make_pairs(Products even, Products odd) {
  return interleave<half>(even, odd, Count<kSquareProducts>::Type());
}

inline void transpose(Pairs (&square)[kSquareLanes]) { transpose_rows(square); }
#else
// Vectors that the machine does not have take minutes to compile.
template <int half>
inline Products make_pairs(Products even, Products odd) {
  Products pairs;
  for (int e = 0; e < kSquareProducts; ++e)
    pairs[e] = (e % 2 ? odd : even)[half * kSquareLanes + e / 2];
  return pairs;
}

inline void transpose(Pairs (&square)[kSquareLanes]) {
  for (int row = 0; row < kSquareLanes; ++row)
    for (int column = 0; column < row; ++column) {
      const uint32_t below = square[row][column];
      square[row][column] = square[column][row];
      square[column][row] = below;
    }
}
#endif

// Elements (lane, product) where they lie; those from `lanes` or `products` on count as zero, and
// are not read.
struct SquareSource {
  const BFloat16* from;
  int64_t lane_stride, product_stride;
  int64_t lanes, products;

  // `count` lanes' products k, if there are any; lanes lie densely.
  Products at(int64_t lane, int64_t k, int64_t count) const {
    return k < products ? load_products(from + lane + k * product_stride, count) : Products{};
  }
};

// The pairs of a square: 16 lanes by 32 products.
inline void load_square(const SquareSource& s, Pairs (&square)[kSquareLanes]) {
  if (s.lane_stride == 1) {
    for (int p = 0; p < kSquareLanes; ++p)
      square[p] = Pairs(make_pairs<0>(s.at(0, 2 * p, s.lanes), s.at(0, 2 * p + 1, s.lanes)));
    return;
  }
  if (s.product_stride == 1) {
#pragma GCC unroll 16
    for (int lane = 0; lane < kSquareLanes; ++lane)
      square[lane] = lane < s.lanes
                         ? Pairs(load_products(s.from + lane * s.lane_stride, s.products))
                         : Pairs{};
    return transpose(square);
  }
  for (int p = 0; p < kSquareLanes; ++p) {
    BFloat16 words[kSquareProducts] = {};
    for (int64_t k = 2 * p; k < least(2 * p + 2, s.products); ++k)
      for (int64_t lane = 0; lane < s.lanes; ++lane)
        words[2 * lane + k - 2 * p] = s.from[lane * s.lane_stride + k * s.product_stride];
    __builtin_memcpy(&square[p], words, sizeof words);
  }
}

inline void copy_products(BFloat16* to, const BFloat16* from, int64_t count) {
  for (; count > kSquareProducts;
       count -= kSquareProducts, to += kSquareProducts, from += kSquareProducts)
    store_products(to, load_products(from, kSquareProducts), kSquareProducts);
  store_products(to, load_products(from, count), count);
}

inline void clear_products(BFloat16* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i].bits = 0;
}

// pack_rows() of at most four products that lie densely.
template <int products>
inline void pack_short_rows(BFloat16* to, int64_t pitch, const SquareSource& source) {
  for (int64_t lane = 0; lane < source.lanes; ++lane) {
    // In a register: storing parts and loading the whole would wait for the stores.
    const BFloat16* from = source.from + lane * source.lane_stride;
    uint64_t row = 0;
    __builtin_memcpy(&row, from, products / 2 * 4);
    if (products % 2 == 1) row |= uint64_t(from[products - 1].bits) << 16 * (products - 1);
    __builtin_memcpy(to + lane * pitch, &row, (products + 1) / 2 * 4);
  }
}

// The first `lanes` of a square's lanes, become rows of `products` products.
inline void store_rows(BFloat16* to, int64_t pitch, Pairs (&square)[kSquareLanes], int64_t lanes,
                       int64_t products) {
  if (products <= 4) {  // not worth a transposition
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const uint64_t row = square[0][lane] | uint64_t(square[1][lane]) << 32;
      __builtin_memcpy(to + lane * pitch, &row, size_t(2 * products));
    }
    return;
  }
  transpose(square);
  for (int64_t lane = 0; lane < lanes; ++lane)
    store_products(to + lane * pitch, Products(square[lane]), products);
}

// pack_rows() of lanes that lie densely: 32 at a time.
inline void pack_lane_rows(BFloat16* to, int64_t pitch, const SquareSource& source,
                           int64_t rounded) {
  for (int64_t lane = 0; lane < source.lanes; lane += kSquareProducts)
    for (int64_t k = 0; k < rounded; k += kSquareProducts) {
      const int64_t lanes = least(kSquareProducts, source.lanes - lane);
      const int64_t products = least(kSquareProducts, rounded - k);
      Pairs low[kSquareLanes] = {}, high[kSquareLanes] = {};
      for (int64_t p = 0; p < products / 2; ++p) {
        const Products even = source.at(lane, k + 2 * p, lanes);
        const Products odd = source.at(lane, k + 2 * p + 1, lanes);
        low[p] = Pairs(make_pairs<0>(even, odd));
        if (lanes > kSquareLanes) high[p] = Pairs(make_pairs<1>(even, odd));
      }
      BFloat16* at = to + lane * pitch + k;
      store_rows(at, pitch, low, least(kSquareLanes, lanes), products);
      if (lanes > kSquareLanes)
        store_rows(at + kSquareLanes * pitch, pitch, high, lanes - kSquareLanes, products);
    }
}

// The rows' operand: product k of a lane goes to to[lane * pitch + k], for k below `rounded`, an
// even number.
inline void pack_rows(BFloat16* to, int64_t pitch, const SquareSource& source, int64_t rounded) {
  if (source.product_stride == 1 && rounded <= 4) {
    if (source.products == 1 && rounded == 2) return pack_short_rows<1>(to, pitch, source);
    if (source.products == 2 && rounded == 2) return pack_short_rows<2>(to, pitch, source);
    if (source.products == 3) return pack_short_rows<3>(to, pitch, source);
    if (source.products == 4) return pack_short_rows<4>(to, pitch, source);
  }
  if (source.product_stride == 1) {
    for (int64_t lane = 0; lane < source.lanes; ++lane)
      for (int64_t k = 0; k < rounded; k += kSquareProducts)
        store_products(to + lane * pitch + k,
                       load_products(source.from + lane * source.lane_stride + k,
                                     most(0, least(kSquareProducts, source.products - k))),
                       least(kSquareProducts, rounded - k));
    return;
  }
  if (source.lane_stride == 1 && source.lanes > 4)
    return pack_lane_rows(to, pitch, source, rounded);
  for (int64_t lane = 0; lane < source.lanes; ++lane) {
    BFloat16* row = to + lane * pitch;
    const BFloat16* from = source.from + lane * source.lane_stride;
    for (int64_t k = 0; k < source.products; ++k) row[k] = from[k * source.product_stride];
    clear_products(row + source.products, rounded - source.products);
  }
}

inline Words round_lanes(Vector<float> sums) {
#if !defined(DILCONV_TWINS)
  return Words(_mm512_cvtneps_pbh(__m512(sums)));
#else
  const Pairs bits = Pairs(sums);
  const Pairs rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return __builtin_convertvector(sums == sums ? rounded : Pairs{} + 0x7fc0, Words);
#endif
}

// to[i * step] = sums[i], rounded, for i below `count`.
inline void round_vector(BFloat16* to, int64_t step, Vector<float> sums, int64_t count) {
  const Words words = round_lanes(sums);
  if (step == 1) return store_words(to, words, count);
  for (int64_t i = 0; i < count; ++i) to[i * step].bits = words[i];
}

// One vector of each of `count` partial sums, `distance` elements apart, added up in order.
inline Vector<float> add_up(const float* sums, int64_t distance, int64_t count) {
  Vector<float> total = load(sums);
  for (int64_t i = 1; i < count; ++i) total += load(sums + i * distance);
  return total;
}

// The biases of `count` rows or columns; without any, -0, which changes nothing that it is added
// to.
inline void load_biases(float* to, const BFloat16* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from ? widen(from[i]) : -0.0f;
}

// to[i] = sums[i] + bias[i], rounded, for i below `count`; both are read in whole vectors.
inline void round_sums(BFloat16* to, const float* sums, const float* bias, int64_t count) {
  int64_t i = 0;
#if !defined(DILCONV_TWINS)
  // Two vectors become one: half as many stores.
  for (; i + kSquareProducts <= count; i += kSquareProducts) {
    const Vector<float> low = load(sums + i) + load(bias + i);
    const Vector<float> high = load(sums + i + kSquareLanes) + load(bias + i + kSquareLanes);
    store_products(to + i, Products(_mm512_cvtne2ps_pbh(__m512(high), __m512(low))),
                   kSquareProducts);
  }
#endif
  for (; i < count; i += kSquareLanes)
    round_vector(to + i, 1, load(sums + i) + load(bias + i), least(kSquareLanes, count - i));
}

// to[lane * stride + i * step] = sums[i * pitch + lane] + bias[lane], rounded, for lanes below
// `lanes` and i below `count`; 32 rows of 16 lanes are read.
inline void turn_sums(BFloat16* to, int64_t stride, int64_t step, const float* sums, int64_t pitch,
                      const float* bias, int64_t lanes, int64_t count) {
  const Vector<float> biases = load(bias);
  Products turned[kSquareLanes];
#if !defined(DILCONV_TWINS)
  // Of rows r and r + 8, so that unzip() leaves the rows in order.
  Products rows[kSquareLanes];
#pragma GCC unroll 16
  for (int r = 0; r < kSquareLanes; ++r) {
    const float* from = sums + (r / 8 * 16 + r % 8) * pitch;
    rows[r] = Products(
        _mm512_cvtne2ps_pbh(__m512(load(from + 8 * pitch) + biases), __m512(load(from) + biases)));
  }
  zip_rows(rows);
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) {
    turned[r] = unzip<0>(rows[r], rows[r + 8], Count<kSquareProducts>::Type());
    turned[r + 8] = unzip<1>(rows[r], rows[r + 8], Count<kSquareProducts>::Type());
  }
#else
  for (int r = 0; r < kSquareProducts; ++r) {
    const Words words = round_lanes(load(sums + r * pitch) + biases);
    for (int lane = 0; lane < kSquareLanes; ++lane) turned[lane][r] = words[lane];
  }
#endif
  if (lanes == kSquareLanes && count == kSquareProducts && step == 1) {
#pragma GCC unroll 16
    for (int lane = 0; lane < kSquareLanes; ++lane)
      store_products(to + lane * stride, turned[lane], kSquareProducts);
    return;
  }
  for (int64_t lane = 0; lane < lanes; ++lane)
    scatter_products(to + lane * stride, step, turned[lane], count);
}
