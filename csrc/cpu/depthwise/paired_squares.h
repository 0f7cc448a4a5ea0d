// Depthwise bfloat16, three taps by three that read neighbours, by products of pairs of taps: tiles
// of sums as in square_tiles.h, of 32 channels that are read and written where they are.
//
// A product takes two taps of a channel, whose elements unpacking puts side by side: two rows' in
// each of the three columns, then two neighbours' of the last row, and the last one's with zero.
// That makes 5 products of a sum where tap by tap it takes 9, and nothing is widened.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

constexpr int kPairs = 5;
static_assert(kPairedChannels == kSquareProducts, "a vector of them");

// Of 32 channels, by halves: the pairs of weights, and what sums start from.
struct PairedWeights {
  Pairs taps[2][kPairs];
  Vector<float> starts[2];
};

// Lane l of a half is this one of the 32 channels: instructions unpack 8 of them at a time.
constexpr int unpacked_channel(int half, int lane) { return lane / 4 * 8 + half * 4 + lane % 4; }

template <int half>
inline Pairs unpack(Products first, Products second) {
#if !defined(DILCONV_TWINS)
  const __m512i a = __m512i(first), b = __m512i(second);
  return Pairs(half == 0 ? _mm512_unpacklo_epi16(a, b) : _mm512_unpackhi_epi16(a, b));
#else
  Pairs pairs;
  for (int lane = 0; lane < kSquareLanes; ++lane) {
    const int channel = unpacked_channel(half, lane);
    pairs[lane] = first[channel] | uint32_t(second[channel]) << 16;
  }
  return pairs;
#endif
}

// The channels' sums, rounded, from those of the halves.
inline Products round_halves(Vector<float> low, Vector<float> high) {
#if !defined(DILCONV_TWINS)
  const __m512i rounded = __m512i(_mm512_cvtne2ps_pbh(__m512(high), __m512(low)));
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  return Products(_mm512_maskz_permutexvar_epi64(__mmask8(-1), order, rounded));
#else
  const Words halves[2] = {round_lanes(low), round_lanes(high)};
  Products products;
  for (int half = 0; half < 2; ++half)
    for (int lane = 0; lane < kSquareLanes; ++lane)
      products[unpacked_channel(half, lane)] = halves[half][lane];
  return products;
#endif
}

// Row u of what a tile reads; zero in the padding.
template <bool checked, int Q, class S>
inline void load_row(const SquareTile<BFloat16, S, Q>& tile, int64_t channel, int u,
                     Products (&row)[Q + 2]) {
#pragma GCC unroll 6
  for (int v = 0; v < Q + 2; ++v)
    row[v] = checked && !(tile.inside >> (u * (Q + 2) + v) & 1)
                 ? Products{}
                 : in_register(load_products(
                       tile.read + u * tile.read_row + tile.column[v] + channel, kPairedChannels));
}

// A half's sums of a tile.
template <int half, int R, bool checked, int Q>
inline void sum_half(const SquareTile<BFloat16, BFloat16, Q>& tile, int64_t channel,
                     const PairedWeights& weights, Vector<float> (&total)[R][Q]) {
  Pairs taps[kPairs];
#pragma GCC unroll 5
  for (int i = 0; i < kPairs; ++i) taps[i] = weights.taps[half][i];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) total[r][q] = weights.starts[half];
  Products above[Q + 2];
#pragma GCC unroll 6
  for (int u = 0; u < R + 2; ++u) {
    Products row[Q + 2];
    load_row<checked>(tile, channel, u, row);
    if (u > 0 && u <= R)
#pragma GCC unroll 6
      for (int v = 0; v < Q + 2; ++v) {
        const Pairs pairs = unpack<half>(above[v], row[v]);
#pragma GCC unroll 3
        for (int b = 0; b < 3; ++b)
          if (v >= b && v - b < Q)
            total[u - 1][v - b] = add_products(total[u - 1][v - b], pairs, taps[b]);
      }
    if (u > 1)
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) {
        Vector<float>& sum = total[u - 2][q];
        sum = add_products(sum, unpack<half>(row[q], row[q + 1]), taps[3]);
        sum = add_products(sum, unpack<half>(row[q + 2], Products{}), taps[4]);
      }
#pragma GCC unroll 6
    for (int v = 0; v < Q + 2; ++v) above[v] = row[v];
  }
}

// Tensors' blocks of 32 channels, of which the last may overlap the one before.
class PairedBlocks : protected DepthwiseTiles {
 protected:
  explicit PairedBlocks(const DepthwisePlan& plan)
      : DepthwiseTiles(plan), blocks_(plan.channels, kPairedChannels) {}

  int64_t first_channel(int64_t block) const {
    return least(block * kPairedChannels, p_.channels - kPairedChannels);
  }

  const Cut blocks_;
};

// conv2d or grad_input of tiles.
class PairedSquares : private PairedBlocks {
 public:
  PairedSquares(const DepthwisePlan& plan, const void* read, const void* weight, const void* bias,
                void* written, void* workspace)
      : PairedBlocks(plan),
        read_(static_cast<const BFloat16*>(read)),
        weight_(static_cast<const BFloat16*>(weight)),
        bias_(static_cast<const BFloat16*>(bias)),
        written_(static_cast<BFloat16*>(written)),
        parts_(blocks_.parts, (blocks_.parts + plan.channel_parts - 1) / plan.channel_parts) {
    Arena arena(workspace);
    weights_ = arena.take<PairedWeights>(blocks_.parts);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void gather(const TaskPool& pool) {
    pool.run(
        pool, blocks_.parts,
        [](void* self, int64_t block, int) { static_cast<PairedSquares*>(self)->pack(block); },
        this);
    pool.run(
        pool, p_.batch * parts_.parts * tiles_[0] * tiles_[1],
        [](void* self, int64_t index, int) {
          static_cast<PairedSquares*>(self)->gather_tile(index);
        },
        this);
  }

 private:
  void pack(int64_t block) const {
    const SquareAxis h(p_.regions[0].h), w(p_.regions[0].w);
    constexpr int kFirst[kPairs][2] = {{0, 0}, {0, 1}, {0, 2}, {2, 0}, {2, 2}};
    constexpr int kSecond[kPairs - 1][2] = {{1, 0}, {1, 1}, {1, 2}, {2, 1}};
    for (int half = 0; half < 2; ++half)
      for (int lane = 0; lane < kSquareLanes; ++lane) {
        const int64_t channel = first_channel(block) + unpacked_channel(half, lane);
        const auto weight = [&](const int (&tap)[2]) {
          return uint32_t(
              weight_[channel * p_.lane_stride + h.kernel[tap[0]] * p_.weight_strides[1] +
                      w.kernel[tap[1]] * p_.weight_strides[2]]
                  .bits);
        };
        for (int i = 0; i < kPairs; ++i)
          weights_[block].taps[half][i][lane] =
              weight(kFirst[i]) | (i < kPairs - 1 ? weight(kSecond[i]) << 16 : 0);
        weights_[block].starts[half][lane] = bias_ ? widen(bias_[channel]) : 0.0f;
      }
  }

  // Of a part of the channels.
  struct Gather {
    const PairedSquares& squares;
    int64_t first_block, last_block;

    template <int R, bool checked, int Q>
    __attribute__((noinline)) void run(const SquareTile<BFloat16, BFloat16, Q>& tile) const {
      for (int64_t block = first_block; block < last_block; ++block) {
        const int64_t c = squares.first_channel(block);
        const PairedWeights& weights = squares.weights_[block];
        Vector<float> total[R][Q];
        float low[R][Q][kSquareLanes];
        sum_half<0, R, checked>(tile, c, weights, total);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
          for (int q = 0; q < Q; ++q) store(low[r][q], total[r][q]);
        sum_half<1, R, checked>(tile, c, weights, total);
        BFloat16* to = tile.written + c;
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r, to += tile.written_row)
#pragma GCC unroll 4
          for (int q = 0; q < Q; ++q)
            store_products(to + q * tile.written_column, round_halves(load(low[r][q]), total[r][q]),
                           kPairedChannels);
      }
    }
  };

  void gather_tile(int64_t index) const {
    const int64_t tiles = tiles_[0] * tiles_[1];
    const int64_t n = index / tiles / parts_.parts, part = index / tiles % parts_.parts;
    const Box tile = tile_box(index % tiles);
    const Gather gather = {*this, parts_.begin(part), parts_.begin(part + 1)};
    const auto read = sample_pixels(read_, p_.read_strides, n, 0);
    const auto written = sample_pixels(written_, p_.written_strides, n, 0);
    const int64_t channels = (gather.last_block - gather.first_block) * kPairedChannels;
    const Squares<BFloat16, BFloat16> squares(p_, p_.regions[0], read, written);
    squares.each(tile.h, tile.w, squares.near(channels), gather);
  }

  const BFloat16* read_;
  const BFloat16* weight_;
  const BFloat16* bias_;
  BFloat16* written_;
  const Cut parts_;  // of the blocks
  PairedWeights* weights_;
  int64_t bytes_;
};

size_t paired_squares_workspace(const DepthwisePlan& plan, int) {
  return PairedSquares(plan, nullptr, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
}

void run_paired_squares(const DepthwisePlan& plan, const void* read, const void* weight,
                        const void* bias, void* written, void* workspace, const TaskPool& pool) {
  PairedSquares(plan, read, weight, bias, written, workspace).gather(pool);
}
