// The packed weights of a gather, as vectors (pixels are rows) or as rows (pixels are in vectors).
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

class PackedWeights {
 public:
  PackedWeights(const GatherPlan& plan, const BFloat16* weight)
      : read_channels(round_up(plan.read_channels, kShape.step)),
        depth(plan.kernel[0] * plan.kernel[1] * read_channels),
        pitch(depth + kSquareProducts),
        in_vectors(plan.vectors == VectorsHold::kWrittenChannels),
        unit(in_vectors ? kLanes<float> : kShape.row_unit),
        tiles((plan.written_channels + unit - 1) / unit, in_vectors ? kTileVectors : kRowUnits),
        p_(plan),
        taps_(plan.kernel[0] * plan.kernel[1]),
        weight_(weight) {}

  int64_t group_size() const { return padded_channels() * (in_vectors ? depth : pitch); }
  int64_t pack_tasks() const { return p_.groups * ((p_.written_channels + 15) / kSquareLanes); }

  // Written channels in register tiles before this one.
  int64_t channels(int64_t tile) const { return tiles.begin(tile) * unit; }

  // The tile's vectors, or its first row.
  const BFloat16* at(int64_t group, int64_t tile) const {
    return packed + group * group_size() + channels(tile) * (in_vectors ? depth : pitch);
  }

  // 16 written channels of a group.
  void pack(int64_t index) const {
    const int64_t squares = pack_tasks() / p_.groups;
    const int64_t group = index / squares, channel = index % squares * kSquareLanes;
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
  const int64_t depth, pitch;   // products of a written channel; between rows
  const bool in_vectors;
  const int64_t unit;  // written channels
  const Cut tiles;     // units, cut into register tiles
  BFloat16* packed = nullptr;

 private:
  int64_t padded_channels() const { return tiles.total * unit; }

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
    const int64_t k = tap * read_channels + c;
    if (!in_vectors) {
      BFloat16* to = packed + group * group_size() + channel * pitch + k;
      pack_rows(to, pitch, source, rounded);
      for (int64_t lane = lanes; lane < round_up(lanes, unit); ++lane)
        clear_products(to + lane * pitch, rounded);
      return;
    }
    int64_t tile = 0;
    while (channels(tile + 1) <= channel) ++tile;
    const int64_t width = channels(tile + 1) - channels(tile);
    BFloat16* block = packed + group * group_size() + channels(tile) * depth;
    pack_vectors(block + k * width + 2 * (channel - channels(tile)), width, source, rounded, true);
  }

  const GatherPlan& p_;
  int64_t taps_;
  const BFloat16* weight_;
};
