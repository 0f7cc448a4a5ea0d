// The packed weights of a gather: written channels in vectors.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class PackedWeights {
 public:
  PackedWeights(const GatherPlan& plan, const BFloat16* weight)
      : read_channels(round_up(plan.read_channels, kShape.step)),
        depth(plan.kernel[0] * plan.kernel[1] * read_channels),
        tiles((plan.written_channels + kSquareLanes - 1) / kSquareLanes, kTileVectors),
        p_(plan),
        taps_(plan.kernel[0] * plan.kernel[1]),
        weight_(weight) {}

  int64_t group_size() const { return tiles.total * kSquareLanes * depth; }
  int64_t pack_tasks() const { return p_.groups * tiles.total; }

  // Written channels in register tiles before this one.
  int64_t channels(int64_t tile) const { return tiles.begin(tile) * kSquareLanes; }

  BFloat16* at(int64_t group, int64_t tile) const {
    return packed + group * group_size() + channels(tile) * depth;
  }

  // 16 written channels of a group.
  void pack(int64_t index) const {
    const int64_t group = index / tiles.total, channel = index % tiles.total * kSquareLanes;
    const BFloat16* from =
        weight_ + group * p_.weight_group_stride + channel * p_.weight_strides[0];
    const bool staged = taps_ > 1 && p_.weight_strides[3] == 1 &&
                        p_.weight_strides[2] == p_.kernel[1] &&
                        (p_.weight_strides[0] == taps_ || p_.weight_strides[1] == taps_);
    for (int64_t c = 0; c < p_.read_channels; c += kSquareProducts)
      if (staged)
        pack_staged(from + c * p_.weight_strides[1], group, channel, c);
      else
        for (int64_t tap = 0; tap < taps_; ++tap)
          pack_square(from + c * p_.weight_strides[1] + tap / p_.kernel[1] * p_.weight_strides[2] +
                          tap % p_.kernel[1] * p_.weight_strides[3],
                      p_.weight_strides[0], p_.weight_strides[1], group, channel, tap, c);
  }

  const int64_t read_channels;  // in whole steps
  const int64_t depth;          // products of a written channel
  const Cut tiles;              // vectors, cut into register tiles
  BFloat16* packed = nullptr;

 private:
  // Taps lie innermost: each is brought together first.
  void pack_staged(const BFloat16* from, int64_t group, int64_t channel, int64_t c) const {
    constexpr int64_t kMostTaps = 16;
    BFloat16 stage[kMostTaps][kSquareLanes * kSquareProducts];
    const int64_t lanes = least(kSquareLanes, p_.written_channels - channel);
    const int64_t products = least(kSquareProducts, p_.read_channels - c);
    const bool lanes_dense = p_.weight_strides[0] == taps_;
    const int64_t rows = lanes_dense ? products : lanes, columns = lanes_dense ? lanes : products;
    const int64_t stride = p_.weight_strides[lanes_dense ? 1 : 0];
    for (int64_t first = 0; first < taps_; first += kMostTaps) {
      const int64_t taps = least(kMostTaps, taps_ - first);
      for (int64_t r = 0; r < rows; ++r) {
        const BFloat16* row = from + r * stride + first;
        for (int64_t column = 0; column < columns; ++column, row += taps_)
          for (int64_t tap = 0; tap < taps; ++tap) stage[tap][r * columns + column] = row[tap];
      }
      for (int64_t tap = 0; tap < taps; ++tap)
        pack_square(stage[tap], lanes_dense ? 1 : columns, lanes_dense ? columns : 1, group,
                    channel, first + tap, c);
    }
  }

  void pack_square(const BFloat16* from, int64_t lane_stride, int64_t product_stride, int64_t group,
                   int64_t channel, int64_t tap, int64_t c) const {
    const int64_t lanes = least(kSquareLanes, p_.written_channels - channel);
    const int64_t products = least(kSquareProducts, p_.read_channels - c);
    const int64_t rounded = least(kSquareProducts, read_channels - c);
    const SquareSource source = {from, lane_stride, product_stride, lanes, 0, products};
    int64_t tile = 0;
    while (channels(tile + 1) <= channel) ++tile;
    const int64_t width = channels(tile + 1) - channels(tile);
    BFloat16* to = at(group, tile) + (tap * read_channels + c) * width;
    pack_vectors(to + 2 * (channel - channels(tile)), width, source, rounded);
  }

  const GatherPlan& p_;
  int64_t taps_;
  const BFloat16* weight_;
};
