// Blocks of channels: packing them into vectors, one per pixel, and back.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Where the lanes of a vector lie in a tensor; lanes beyond `used` are none of its channels.
template <class T>
struct LaneOffsets {
  int64_t of[kLanes<T>];
  int64_t used;
  bool neighbours;  // one element apart

  // Lane l is channel (first + l * multiplier) / divisor, `stride` apart; used lanes of them.
  LaneOffsets(int64_t first, int64_t multiplier, int64_t divisor, int64_t stride, int64_t lanes)
      : used(least(lanes, kLanes<T>)) {
    for (int64_t l = 0; l < kLanes<T>; ++l)
      of[l] = (first + least(l, used - 1) * multiplier) / divisor * stride;
    neighbours = divisor == 1 && multiplier * stride == 1;
  }

  // Lane l is channel first + l: of a group, and within it.
  static LaneOffsets in_groups(int64_t first, int64_t group, int64_t group_stride, int64_t stride,
                               int64_t lanes) {
    LaneOffsets offsets(first, 1, 1, stride, lanes);
    if (group_stride == group * stride) return offsets;
    for (int64_t l = 0; l < kLanes<T>; ++l) {
      const int64_t channel = first + least(l, offsets.used - 1);
      offsets.of[l] = channel / group * group_stride + channel % group * stride;
    }
    offsets.neighbours = false;
    return offsets;
  }
};

// The first of `count` pixels, `step` apart, whose whole vectors end before the last one's used
// lanes do.
template <class T>
int64_t whole_vectors(const LaneOffsets<T>& lanes, int64_t step, int64_t count) {
  if (!lanes.neighbours) return 0;
  if (lanes.used == kLanes<T>) return count;
  return step > 0 ? most(0, count - (kLanes<T> - lanes.used + step - 1) / step) : 0;
}

// to[q * pitch + lane] = from[lane's offset + q * step], for count pixels q.
template <class T, class S>
void pack_pixels(T* to, int64_t pitch, const S* from, const LaneOffsets<T>& lanes, int64_t step,
                 int64_t count) {
  constexpr int64_t n = kLanes<T>;
  if (step != 1 || lanes.used == 1) {
    const int64_t whole = whole_vectors(lanes, step, count);
    for (int64_t q = 0; q < whole; ++q)
      store(to + q * pitch, load_widened<T>(from + lanes.of[0] + q * step));
    for (int64_t q = whole; q < count; ++q)
      for (int64_t l = 0; l < n; ++l)
        to[q * pitch + l] = l < lanes.used ? T(widen(from[lanes.of[l] + q * step])) : T(0);
    return;
  }
  for (int64_t q = 0; q < count; q += n, to += n * pitch, from += n)
    transpose_lanes<T>(
        lanes.used, least(n, count - q), n, [&](int64_t l) { return from + lanes.of[l]; },
        [&](int64_t r) { return to + r * pitch; });
}

// to[lane's offset + q * step] = from[q * pitch + lane], for count pixels q.
template <class S, class T>
void unpack_pixels(S* to, const LaneOffsets<T>& lanes, int64_t step, const T* from, int64_t pitch,
                   int64_t count) {
  constexpr int64_t n = kLanes<T>;
  if (step != 1 || lanes.used == 1) {
    // A vector may write into the next pixel, before that one is written, but nowhere else.
    const bool dense = step == lanes.used || lanes.used == n;
    const int64_t whole = dense ? whole_vectors(lanes, step, count) : 0;
    for (int64_t q = 0; q < whole; ++q)
      store_narrowed<T>(to + lanes.of[0] + q * step, load(from + q * pitch));
    for (int64_t q = whole; q < count; ++q)
      for (int64_t l = 0; l < lanes.used; ++l)
        narrow(from[q * pitch + l], to[lanes.of[l] + q * step]);
    return;
  }
  for (int64_t q = 0; q < count; q += n, to += n, from += n * pitch) {
    const int64_t pixels = least(n, count - q);
    transpose_lanes<T>(
        pixels, lanes.used, pixels, [&](int64_t r) { return from + r * pitch; },
        [&](int64_t l) { return to + lanes.of[l]; });
  }
}

// Packs a box of one sample, `from` being its first pixel's first channel: dense vectors.
template <class T, class S>
PixelView<const T> pack_box(T* to, const S* from, const int64_t (&strides)[4],
                            const LaneOffsets<T>& lanes, const Box& box) {
  from += box.h.begin * strides[2] + box.w.begin * strides[3];
  const int64_t width = box.columns();
  if (box.rows() > 0 && strides[2] == width * strides[3])
    pack_pixels(to, kLanes<T>, from, lanes, strides[3], box.rows() * width);
  else
    for (int64_t i = 0; i < box.rows(); ++i)
      pack_pixels(to + i * width * kLanes<T>, kLanes<T>, from + i * strides[2], lanes, strides[3],
                  width);
  return {to, box.h.begin, box.w.begin, width * kLanes<T>, kLanes<T>};
}

// And back.
template <class S, class T>
void unpack_box(S* to, const int64_t (&strides)[4], const LaneOffsets<T>& lanes, const Box& box,
                const T* from) {
  to += box.h.begin * strides[2] + box.w.begin * strides[3];
  const int64_t width = box.columns();
  if (strides[2] == width * strides[3])
    unpack_pixels(to, lanes, strides[3], from, kLanes<T>, box.rows() * width);
  else
    for (int64_t i = 0; i < box.rows(); ++i)
      unpack_pixels(to + i * strides[2], lanes, strides[3], from + i * width * kLanes<T>, kLanes<T>,
                    width);
}

// The positions along an axis that the written ones in [begin, end) read, inside the image.
inline Part reads_of(const Span& span, int64_t begin, int64_t end, int64_t size) {
  const Part part = part_of(span, begin, end);
  if (part.begin == part.end || span.tap_count == 0) return {0, 0};
  const int64_t one = span.taps[0].origin, other = span.taps[span.tap_count - 1].origin;
  const int64_t first = most(0, least(one, other) + part.begin * span.read_step);
  const int64_t last = least(size, most(one, other) + (part.end - 1) * span.read_step + 1);
  return first < last ? Part{first, last} : Part{0, 0};
}
