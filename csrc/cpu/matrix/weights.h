// The packed weights of a gather: written channels in vectors.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class PackedWeights {
 public:
  PackedWeights(const MatrixGatherPlan& plan, const BFloat16* weight)
      : read_channels(plan.products.read_channels),
        taps(plan.products.kernel[0] * plan.products.kernel[1]),
        tiles((plan.products.written_channels + kSquareLanes - 1) / kSquareLanes, kTileVectors),
        p_(plan.tensors),
        folded_columns_(plan.folded_columns),
        joined_groups_(plan.joined_groups),
        weight_(weight) {}

  int64_t group_size() const { return tiles.total * kSquareLanes * taps * read_channels; }
  int64_t pack_tasks() const { return p_.groups * tiles.total; }

  // Written channels in register tiles before this one.
  int64_t channels(int64_t tile) const { return tiles.begin(tile) * kSquareLanes; }

  BFloat16* at(int64_t group, int64_t tile) const {
    return packed + group * group_size() + channels(tile) * taps * read_channels;
  }

  // 16 written channels of a group.
  void pack(int64_t index) const {
    const int64_t group = index / tiles.total, channel = index % tiles.total * kSquareLanes;
    const BFloat16* from =
        weight_ + group * p_.weight_group_stride + channel * p_.weight_strides[0];
    const bool runs = taps > 1 && taps <= kMostTaps && p_.weight_strides[3] == 1 &&
                      p_.weight_strides[2] == p_.kernel[1] &&
                      (p_.weight_strides[0] == taps || p_.weight_strides[1] == taps);
    for (int64_t c = 0; c < read_channels; c += kSquareProducts)
      if (joined_groups_ > 1)
        pack_joined(group, channel, c);
      else if (folded_columns_ > 1)
        pack_folded(from, group, channel, c);
      else if (runs)
        pack_runs(from + c * p_.weight_strides[1], group, channel, c);
      else
        for (int64_t tap = 0; tap < taps; ++tap)
          pack_square(from + c * p_.weight_strides[1] + tap / p_.kernel[1] * p_.weight_strides[2] +
                          tap % p_.kernel[1] * p_.weight_strides[3],
                      p_.weight_strides[0], p_.weight_strides[1], group, channel, tap, c,
                      p_.read_channels - c);
  }

  const int64_t read_channels;  // in whole steps, of folded columns
  const int64_t taps;
  const Cut tiles;  // vectors, cut into register tiles
  BFloat16* packed = nullptr;

 private:
  // Columns' channels side by side: they are few.
  void pack_folded(const BFloat16* from, int64_t group, int64_t channel, int64_t c) const {
    BFloat16 stage[kSquareLanes * kSquareProducts];
    const int64_t lanes = least(kSquareLanes, p_.written_channels - channel);
    const int64_t products = least(kSquareProducts, folded_columns_ * p_.read_channels - c);
    for (int64_t row = 0; row < taps; ++row) {
      for (int64_t lane = 0; lane < lanes; ++lane)
        for (int64_t k = 0; k < products; ++k)
          stage[lane * kSquareProducts + k] =
              from[lane * p_.weight_strides[0] + (c + k) % p_.read_channels * p_.weight_strides[1] +
                   row * p_.weight_strides[2] + (c + k) / p_.read_channels * p_.weight_strides[3]];
      pack_square(stage, kSquareProducts, 1, group, channel, row, c, products);
    }
  }

  // Each joined group's weights, and zeros where a channel of one would read another's.
  void pack_joined(int64_t group, int64_t channel, int64_t c) const {
    const int64_t written = p_.written_channels / joined_groups_;
    const int64_t read = p_.read_channels / joined_groups_;
    const int64_t stride = p_.weight_group_stride / joined_groups_;
    const int64_t lanes = least(kSquareLanes, p_.written_channels - channel);
    for (int64_t tap = 0; tap < taps; ++tap) {
      BFloat16 stage[kSquareLanes * kSquareProducts] = {};
      const BFloat16* from = weight_ + group * p_.weight_group_stride +
                             tap / p_.kernel[1] * p_.weight_strides[2] +
                             tap % p_.kernel[1] * p_.weight_strides[3];
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t joined = (channel + lane) / written;
        const int64_t begin = most(c, joined * read);
        const int64_t end = least(c + kSquareProducts, (joined + 1) * read);
        for (int64_t k = begin; k < end; ++k)
          stage[lane * kSquareProducts + k - c] =
              from[joined * stride + (channel + lane) % written * p_.weight_strides[0] +
                   (k - joined * read) * p_.weight_strides[1]];
      }
      pack_square(stage, kSquareProducts, 1, group, channel, tap, c, kSquareProducts);
    }
  }

  // Runs of all taps lie next to each other, of read channels or of written ones.
  void pack_runs(const BFloat16* from, int64_t group, int64_t channel, int64_t c) const {
    const int64_t lanes = least(kSquareLanes, p_.written_channels - channel);
    const int64_t products = least(kSquareProducts, p_.read_channels - c);
    const int64_t (&stride)[4] = p_.weight_strides;
    if (stride[1] == taps) {
      Pairs runs[kSquareLanes * kMostTaps];
      load_runs(runs, {from, stride[0], 1, lanes, products * taps}, kSquareProducts * taps);
      for (int64_t tap = 0; tap < taps; ++tap) {
        Pairs square[kSquareLanes];
        for (int64_t p = 0; p < kSquareLanes; ++p)
          square[p] = element(runs, 2 * p * taps + tap) | element(runs, (2 * p + 1) * taps + tap)
                                                              << 16;
        store_square(square, group, channel, tap, c);
      }
      return;
    }
    Pairs even[kSquareLanes * kMostTaps / 2], odd[kSquareLanes * kMostTaps / 2];
    const int64_t count = kSquareLanes * taps;
    load_runs(even, {from, 2 * stride[1], 1, (products + 1) / 2, lanes * taps}, count);
    load_runs(odd, {from + stride[1], 2 * stride[1], 1, products / 2, lanes * taps}, count);
    for (int64_t tap = 0; tap < taps; ++tap) {
      Pairs square[kSquareLanes];
      for (int64_t lane = 0; lane < kSquareLanes; ++lane)
        square[lane] = element(even, lane * taps + tap) | element(odd, lane * taps + tap) << 16;
      transpose(square);
      store_square(square, group, channel, tap, c);
    }
  }

  // The first `count` products, zeros after the source's last: 2 * i and 2 * i + 1 become pairs[i].
  static void load_runs(Pairs* pairs, const SquareSource& source, int64_t count) {
    for (int64_t k = 0; k < count; k += kSquareProducts, pairs += kSquareLanes) {
      SquareSource part = source;
      part.from += k;
      part.products = most(0, least(kSquareProducts, source.products - k));
      Pairs square[kSquareLanes];
      load_square(part, square);
      __builtin_memcpy(pairs, square, sizeof square);
    }
  }

  // Product k of every lane.
  static Pairs element(const Pairs* pairs, int64_t k) {
    return pairs[k / 2] >> int(k % 2 * 16) & 0xffff;
  }

  void pack_square(const BFloat16* from, int64_t lane_stride, int64_t product_stride, int64_t group,
                   int64_t channel, int64_t tap, int64_t c, int64_t products) const {
    const int64_t lanes = least(kSquareLanes, p_.written_channels - channel);
    Pairs square[kSquareLanes];
    load_square({from, lane_stride, product_stride, lanes, least(kSquareProducts, products)},
                square);
    store_square(square, group, channel, tap, c);
  }

  void store_square(const Pairs (&square)[kSquareLanes], int64_t group, int64_t channel,
                    int64_t tap, int64_t c) const {
    int64_t tile = 0;
    while (channels(tile + 1) <= channel) ++tile;
    const int64_t width = channels(tile + 1) - channels(tile);
    BFloat16* to =
        at(group, tile) + (tap * read_channels + c) * width + 2 * (channel - channels(tile));
    for (int64_t p = 0; p < least(kSquareProducts, read_channels - c) / 2; ++p)
      store_products(to + p * 2 * width, Products(square[p]), kSquareProducts);
  }

  static constexpr int64_t kMostTaps = 64;  // whose runs are brought together

  const GatherPlan& p_;
  int64_t folded_columns_, joined_groups_;
  const BFloat16* weight_;
};
