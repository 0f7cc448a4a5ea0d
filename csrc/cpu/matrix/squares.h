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

// The first `count` of 16 elements, widened; the others are zero.
inline Pairs load_words(const BFloat16* from, int64_t count) {
#if !defined(DILCONV_TWINS)
  const Words words = Words(_mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), from));
#else
  Words words = {};
  __builtin_memcpy(&words, from, size_t(2 * count));
#endif
  return __builtin_convertvector(words, Pairs);
}

// The first `count` of 32 elements; the others are zero.
inline Pairs load_products(const BFloat16* from, int64_t count) {
#if !defined(DILCONV_TWINS)
  return Pairs(_mm512_maskz_loadu_epi16(__mmask32((uint64_t(1) << count) - 1), from));
#else
  Pairs pairs = {};
  __builtin_memcpy(&pairs, from, size_t(2 * count));
  return pairs;
#endif
}

inline void store_products(BFloat16* to, Pairs pairs, int64_t count) {
#if !defined(DILCONV_TWINS)
  _mm512_mask_storeu_epi16(to, __mmask32((uint64_t(1) << count) - 1), __m512i(pairs));
#else
  __builtin_memcpy(to, &pairs, size_t(2 * count));
#endif
}

// Elements (lane, product) where they lie; those before product `first` and from `lanes` or
// `products` on count as zero, and are not read.
struct SquareSource {
  const BFloat16* from;
  int64_t lane_stride, product_stride;
  int64_t lanes, first, products;
};

inline void load_square(const SquareSource& s, int64_t pairs, Pairs (&square)[kSquareLanes]) {
  if (s.lane_stride == 1) {
    const BFloat16* from = s.from;
    for (int64_t p = 0; p < pairs; ++p, from += 2 * s.product_stride) {
      const bool low = 2 * p >= s.first && 2 * p < s.products, high = 2 * p + 1 < s.products;
      square[p] = (low ? load_words(from, s.lanes) : Pairs{}) |
                  (high ? load_words(from + s.product_stride, s.lanes) << 16 : Pairs{});
    }
    return;
  }
  if (s.product_stride == 1 && s.first == 0) {
#pragma GCC unroll 16
    for (int lane = 0; lane < kSquareLanes; ++lane)
      square[lane] =
          lane < s.lanes ? load_products(s.from + lane * s.lane_stride, s.products) : Pairs{};
    return transpose_stage<1>(square);
  }
  for (int64_t p = 0; p < pairs; ++p) {
    BFloat16 words[kSquareProducts] = {};
    for (int64_t k = most(2 * p, s.first); k < least(2 * p + 2, s.products); ++k)
      for (int64_t lane = 0; lane < s.lanes; ++lane)
        words[2 * lane + k - 2 * p] = s.from[lane * s.lane_stride + k * s.product_stride];
    __builtin_memcpy(&square[p], words, sizeof words);
  }
}

// Calls use(lane, product, source, pairs) for each square of the elements, in `products` rounded up
// to `step`.
template <class Use>
inline void for_squares(const SquareSource& all, int64_t rounded, const Use& use) {
  for (int64_t lane = 0; lane < all.lanes; lane += kSquareLanes)
    for (int64_t k = 0; k < rounded; k += kSquareProducts) {
      const SquareSource square = {
          all.from + lane * all.lane_stride + k * all.product_stride,
          all.lane_stride,
          all.product_stride,
          least(kSquareLanes, all.lanes - lane),
          most(0, all.first - k),
          most(0, least(kSquareProducts, all.products - k))};
      use(lane, k, square, least(kSquareProducts, rounded - k) / 2);
    }
}

// The vectors' operand: product k of a lane goes to to[k / 2 * 2 * width + 2 * lane + k % 2], for k
// below `rounded`, an even number. Lanes up to a multiple of 16 are written if `whole`.
inline void pack_vectors(BFloat16* to, int64_t width, const SquareSource& source, int64_t rounded,
                         bool whole) {
  for_squares(source, rounded,
              [&](int64_t lane, int64_t k, const SquareSource& from, int64_t pairs) {
                Pairs square[kSquareLanes];
                load_square(from, pairs, square);
                BFloat16* at = to + k * width + 2 * lane;
                const int64_t stored = whole ? kSquareProducts : 2 * from.lanes;
                for (int64_t p = 0; p < pairs; ++p)
                  store_products(at + p * 2 * width, square[p], stored);
              });
}

// The rows' operand: product k of a lane goes to to[lane * pitch + k], for k below `rounded`.
inline void pack_rows(BFloat16* to, int64_t pitch, const SquareSource& source, int64_t rounded) {
  for_squares(source, rounded,
              [&](int64_t lane, int64_t k, const SquareSource& from, int64_t pairs) {
                BFloat16* at = to + lane * pitch + k;
                if (from.product_stride == 1 && from.first == 0) {
                  for (int64_t i = 0; i < from.lanes; ++i)
                    store_products(at + i * pitch,
                                   load_products(from.from + i * from.lane_stride, from.products),
                                   2 * pairs);
                  return;
                }
                Pairs square[kSquareLanes] = {};
                load_square(from, pairs, square);
                transpose_stage<1>(square);
                for (int64_t i = 0; i < from.lanes; ++i)
                  store_products(at + i * pitch, square[i], 2 * pairs);
              });
}

inline void clear_products(BFloat16* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i].bits = 0;
}

// Zeroes lanes of the vectors' operand.
inline void clear_lanes(BFloat16* to, int64_t width, Range lanes, int64_t products) {
  for (int64_t k = 0; k < products && lanes.begin < lanes.end; k += 2)
    clear_products(to + k * width + 2 * lanes.begin, 2 * (lanes.end - lanes.begin));
}

// Sums, rounded: to[i * step] = from[i] + bias[i * bias_step], if there is a bias.
inline void round_sums(BFloat16* to, int64_t step, const float* from, const float* bias,
                       int64_t bias_step, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    narrow(bias ? from[i] + bias[i * bias_step] : from[i], to[i * step]);
}
