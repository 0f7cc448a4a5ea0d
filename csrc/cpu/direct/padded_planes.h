// A gather of few written channels: planes that are read are copied with zeros around them, some
// channels at a time, and every tap finds its vectors of pixels there. Weights are broadcast.
//
// Packed panels would cost as much as the products here, and reading in place takes each vector of
// each plane from afar.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class PaddedPlanes {
 public:
  PaddedPlanes(const GatherPlan& plan, int workers, const void* read, const void* weight,
               const void* bias, void* written, void* workspace)
      : p_(plan),
        taps_(plan.kernel[0] * plan.kernel[1]),
        read_(static_cast<const S*>(read)),
        weight_(static_cast<const S*>(weight)),
        bias_(static_cast<const S*>(bias)),
        written_(static_cast<S*>(written)),
        parts_(plan.read_channels, plan.plane_channels),
        blocks_(plan.written_channels, kMaxRows) {
    Arena arena(workspace);
    weights_ = arena.take<T>(plan.groups * plan.read_channels * taps_ * plan.written_channels);
    for (int64_t r = 0; r < plan.region_count; ++r) {
      const Tile first(plan, plan.regions[r], 0, 0);
      plane_elements_ = most(plane_elements_, least(plan.read_size[0], first.height) * first.pitch);
      sum_elements_ = most(sum_elements_, first.sums());
      tiles_ += tile_count(plan.regions[r]);
    }
    worker_bytes_ = scratch_at(nullptr).bytes;
    workers_ = arena.take<char>(workers * worker_bytes_);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, p_.groups * blocks_.parts,
        [](void* self, int64_t index, int) {
          static_cast<PaddedPlanes*>(self)->pack_weights(index);
        },
        this);
    pool.run(
        pool, p_.batch * p_.groups * tiles_,
        [](void* self, int64_t index, int worker) {
          static_cast<PaddedPlanes*>(self)->task(index, worker);
        },
        this);
  }

 private:
  // What one worker needs while it runs a task.
  struct Scratch {
    T* planes;
    T* sums;
    int64_t bytes;
  };

  Scratch scratch_at(char* base) const {
    const int64_t channels = (parts_.total + parts_.parts - 1) / parts_.parts;
    Arena arena(base);
    T* planes = arena.take<T>(channels * plane_elements_);
    T* sums = arena.take<T>(p_.written_channels * sum_elements_);
    return {planes, sums, arena.used()};
  }

  // A rectangle of a region's written positions, and what its taps read, inside the image or not.
  struct Tile {
    Tile(const GatherPlan& plan, const Region& from, int64_t row, int64_t column)
        : region(from),
          rows{row, least(from.h.count, row + plan.tile[0])},
          columns{column, least(from.w.count, column + plan.tile[1])} {
      const Range h = origins(from.h), w = origins(from.w);
      top = h.begin + rows.begin * from.h.read_step;
      left = w.begin + columns.begin;
      height = h.end - h.begin + (rows.end - rows.begin - 1) * from.h.read_step + 1;
      inside = {least(plan.read_size[0], most(0, top)),
                most(0, least(plan.read_size[0], top + height))};
      vectors = (columns.end - columns.begin + kLanes<T> - 1) / kLanes<T>;
      pitch = round_up(w.end - w.begin, kLanes<T>) + vectors * kLanes<T>;
    }

    int64_t plane() const { return (inside.end - inside.begin) * pitch; }
    int64_t sums() const { return (rows.end - rows.begin) * vectors * kLanes<T>; }

    const Region& region;
    Range rows, columns;
    int64_t top, left;  // what the first position reads with the tap that reads first
    int64_t height;     // of what is read
    Range inside;       // its rows inside the image
    int64_t vectors, pitch;
  };

  // The least and the largest of a span's taps, whose origins are monotone.
  static Range origins(const Span& span) {
    if (span.tap_count == 0) return {0, 0};
    const int64_t first = span.taps[0].origin, last = span.taps[span.tap_count - 1].origin;
    return {least(first, last), most(first, last)};
  }

  int64_t tile_count(const Region& region) const {
    return Cut(region.h.count, p_.tile[0]).parts * Cut(region.w.count, p_.tile[1]).parts;
  }

  // Of a block: [read channel][tap][written channel of the block].
  T* packed_block(int64_t group, int64_t block) const {
    return weights_ +
           (group * p_.written_channels + blocks_.begin(block)) * p_.read_channels * taps_;
  }

  void pack_weights(int64_t index) const {
    const int64_t group = index / blocks_.parts, block = index % blocks_.parts;
    T* to = packed_block(group, block);
    const S* from = weight_ + group * p_.weight_group_stride;
    for (int64_t c = 0; c < p_.read_channels; ++c)
      for (int64_t a = 0; a < p_.kernel[0]; ++a)
        for (int64_t b = 0; b < p_.kernel[1]; ++b)
          for (int64_t o = blocks_.begin(block); o < blocks_.begin(block + 1); ++o)
            *to++ = widen(from[o * p_.weight_strides[0] + c * p_.weight_strides[1] +
                               a * p_.weight_strides[2] + b * p_.weight_strides[3]]);
  }

  void task(int64_t index, int worker) const {
    int64_t tile_index = index % tiles_;
    const int64_t group = index / tiles_ % p_.groups, n = index / tiles_ / p_.groups;
    const Region* region = p_.regions;
    while (tile_index >= tile_count(*region)) tile_index -= tile_count(*region++);
    const int64_t across = Cut(region->w.count, p_.tile[1]).parts;
    const Tile tile(p_, *region, tile_index / across * p_.tile[0],
                    tile_index % across * p_.tile[1]);
    const Scratch scratch = scratch_at(workers_ + worker * worker_bytes_);
    for (int64_t part = 0; part < parts_.parts; ++part) {
      const Range channels = {parts_.begin(part), parts_.begin(part + 1)};
      copy_planes(tile, n, group, channels, scratch.planes);
      multiply(tile, group, channels, scratch.planes, scratch.sums);
    }
    write(tile, n, group, scratch.sums);
  }

  void copy_planes(const Tile& tile, int64_t n, int64_t group, const Range& channels,
                   T* planes) const {
    const int64_t begin = least(tile.pitch, most(0, -tile.left));
    const int64_t end = most(begin, least(tile.pitch, p_.read_size[1] - tile.left));
    // Planes one by one, as they lie, or in squares.
    const int64_t step = p_.read_strides[1] == 1 ? kLanes<T> : 1;
    for (int64_t c = channels.begin; c < channels.end; c += step) {
      const int64_t count = least(step, channels.end - c);
      T* to = planes + (c - channels.begin) * tile.plane();
      for (int64_t row = tile.inside.begin; row < tile.inside.end; ++row, to += tile.pitch) {
        if (!reads(tile, row)) continue;
        for (int64_t plane = 0; plane < count; ++plane) {
          clear(to + plane * tile.plane(), begin);
          clear(to + plane * tile.plane() + end, tile.pitch - end);
        }
        const S* from = read_ + n * p_.read_strides[0] +
                        (group * p_.read_channels + c) * p_.read_strides[1] +
                        row * p_.read_strides[2] + (tile.left + begin) * p_.read_strides[3];
        copy_to_planes(to + begin, tile.plane(), from, p_.read_strides[3], p_.read_strides[1],
                       end - begin, count);
      }
    }
  }

  // Whether a tap reads the row, for any of the tile's.
  static bool reads(const Tile& tile, int64_t row) {
    const Span& h = tile.region.h;
    for (int64_t t = 0; t < h.tap_count; ++t) {
      const int64_t distance = row - h.taps[t].origin;
      if (distance < tile.rows.begin * h.read_step || distance >= tile.rows.end * h.read_step)
        continue;
      if (h.read_step == 1 || distance % h.read_step == 0) return true;
    }
    return false;
  }

  // The taps that read inside the image for a row of the region: neighbours, as origins are
  // monotone.
  Range taps_of(const Span& h, int64_t row) const {
    Range taps = {0, 0};
    for (int64_t t = 0; t < h.tap_count; ++t) {
      const int64_t at = h.taps[t].origin + row * h.read_step;
      if (at < 0 || at >= p_.read_size[0]) continue;
      if (taps.begin == taps.end) taps.begin = t;
      taps.end = t + 1;
    }
    return taps;
  }

  // What the vectors of some rows sum: the same taps of the same channels.
  struct Products {
    int64_t offsets[kPanelDepth];
    DepthRange weights[kPanelDepth];
    int count = 0;
  };

  void multiply(const Tile& tile, int64_t group, const Range& channels, const T* planes,
                T* sums) const {
    const Span& h = tile.region.h;
    for (int64_t row = tile.rows.begin, next; row < tile.rows.end; row = next) {
      const Range taps = taps_of(h, row);
      for (next = row + 1; next < tile.rows.end; ++next) {
        const Range others = taps_of(h, next);
        if (others.begin != taps.begin || others.end != taps.end) break;
      }
      Products products;
      list_products(tile, channels, taps, products);
      for (int64_t block = 0; block < blocks_.parts; ++block)
        multiply_rows(tile, {row, next}, products, planes, packed_block(group, block),
                      int(blocks_.size(block)), channels.begin > 0,
                      sums + blocks_.begin(block) * tile.sums());
    }
  }

  void list_products(const Tile& tile, const Range& channels, const Range& taps,
                     Products& products) const {
    const Span &h = tile.region.h, &w = tile.region.w;
    const int64_t top = tile.rows.begin * h.read_step - tile.inside.begin;
    const int64_t left = tile.columns.begin - tile.left;
    int64_t* offset = products.offsets;
    for (int64_t c = channels.begin; c < channels.end; ++c)
      for (int64_t a = taps.begin; a < taps.end; ++a)
        for (int64_t b = 0; b < w.tap_count; ++b) {
          *offset++ = (c - channels.begin) * tile.plane() + (h.taps[a].origin + top) * tile.pitch +
                      w.taps[b].origin + left;
          const int64_t at =
              (c * p_.kernel[0] + h.taps[a].kernel) * p_.kernel[1] + w.taps[b].kernel;
          DepthRange* last = products.weights + products.count - 1;
          if (products.count > 0 && last->begin + last->depth == at)
            ++last->depth;
          else
            products.weights[products.count++] = {at, 1};
        }
  }

  // Rows of the tile and a block of written channels.
  void multiply_rows(const Tile& tile, const Range& rows, const Products& products, const T* planes,
                     const T* weights, int channels, bool add, T* sums) const {
    Segment<T> segments[kPanelDepth];
    for (int s = 0; s < products.count; ++s)
      segments[s] = {weights + products.weights[s].begin * channels, nullptr,
                     products.weights[s].depth};
    const int64_t pitch = tile.vectors * kLanes<T>, step = tile.region.h.read_step * tile.pitch;
    const Cut cut((rows.end - rows.begin) * tile.vectors, most_vectors(channels));
    for (int64_t part = 0; part < cut.parts; ++part) {
      const T* read[kMostVectors];
      T* to[kMostVectors];
      for (int64_t v = 0; v < cut.size(part); ++v) {
        const int64_t index = cut.begin(part) + v;
        const int64_t row = rows.begin - tile.rows.begin + index / tile.vectors;
        const int64_t column = index % tile.vectors * kLanes<T>;
        read[v] = planes + row * step + column;
        to[v] = sums + row * pitch + column;
      }
      vector_tile<T>(channels, int(cut.size(part)))(read, products.offsets, segments,
                                                    products.count, to, tile.sums(), add, nullptr);
    }
  }

  void write(const Tile& tile, int64_t n, int64_t group, T* sums) const {
    const Span &h = tile.region.h, &w = tile.region.w;
    const int64_t width = tile.columns.end - tile.columns.begin;
    for (int64_t o = 0; o < p_.written_channels; ++o) {
      const int64_t channel = group * p_.written_channels + o;
      const T start = bias_ ? T(widen(bias_[channel])) : T(0);
      for (int64_t i = tile.rows.begin; i < tile.rows.end; ++i, sums += tile.vectors * kLanes<T>) {
        for (int64_t v = 0; bias_ && v < tile.vectors * kLanes<T>; ++v) sums[v] += start;
        scatter(written_ + n * p_.written_strides[0] + channel * p_.written_strides[1] +
                    (h.begin + i * h.step) * p_.written_strides[2] +
                    (w.begin + tile.columns.begin * w.step) * p_.written_strides[3],
                w.step * p_.written_strides[3], sums, width);
      }
    }
  }

  const GatherPlan& p_;
  int64_t taps_;
  const S* read_;
  const S* weight_;
  const S* bias_;
  S* written_;
  Cut parts_;   // read channels whose planes are copied together
  Cut blocks_;  // written channels of a register tile
  T* weights_;
  char* workers_;
  int64_t plane_elements_ = 0, sum_elements_ = 0;  // of the largest plane of a tile, and its sums
  int64_t worker_bytes_, bytes_, tiles_ = 0;
};
