// Copies between tensors and packed operands, widening 16-bit elements on the way.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

// Copies `rows` rows of `count` elements. Each row takes `full` whole moves and one that ends at
// its last element, so it may overlap the one before: short rows cost no loop over single elements.
template <int bytes, int full, class T>
inline void copy_moves(T* to, int64_t to_pitch, const T* from, int64_t from_pitch, int64_t rows,
                       int64_t count) {
  constexpr int64_t elements = bytes / int64_t(sizeof(T));
  struct Move {
    char data[bytes];
  };
  for (; rows > 0; --rows, to += to_pitch, from += from_pitch) {
    Move moves[full + 1];
#pragma GCC unroll 4
    for (int m = 0; m < full; ++m) __builtin_memcpy(&moves[m], from + m * elements, bytes);
    __builtin_memcpy(&moves[full], from + count - elements, bytes);
#pragma GCC unroll 4
    for (int m = 0; m < full; ++m) __builtin_memcpy(to + m * elements, &moves[m], bytes);
    __builtin_memcpy(to + count - elements, &moves[full], bytes);
  }
}

template <int bytes, class T>
inline bool copy_short(T* to, int64_t to_pitch, const T* from, int64_t from_pitch, int64_t rows,
                       int64_t count) {
  if constexpr (bytes >= int(sizeof(T))) {
    constexpr int64_t elements = bytes / int64_t(sizeof(T));
    if (count == elements)
      return copy_moves<bytes, 0>(to, to_pitch, from, from_pitch, rows, count), true;
    if (count > elements)
      return copy_moves<bytes, 1>(to, to_pitch, from, from_pitch, rows, count), true;
    return copy_short<bytes / 2>(to, to_pitch, from, from_pitch, rows, count);
  }
  return false;
}

// Dense rows of at most three vectors.
template <class T>
inline void copy_rows(T* to, int64_t to_pitch, const T* from, int64_t from_pitch, int64_t rows,
                      int64_t count) {
  constexpr int64_t lanes = kLanes<T>;
  if (count <= lanes)
    copy_short<kVectorBytes>(to, to_pitch, from, from_pitch, rows, count);
  else if (count <= 2 * lanes)
    copy_moves<kVectorBytes, 1>(to, to_pitch, from, from_pitch, rows, count);
  else
    copy_moves<kVectorBytes, 2>(to, to_pitch, from, from_pitch, rows, count);
}

template <class T>
inline void copy_dense(T* to, const T* from, int64_t count) {
  constexpr int64_t most_moved = 3 * kLanes<T>;
  for (; count > most_moved; count -= most_moved, to += most_moved, from += most_moved)
    copy_moves<kVectorBytes, 2>(to, 0, from, 0, 1, most_moved);
  copy_rows(to, 0, from, 0, 1, count);
}

// ---- vectors of 16-bit elements

// A vector's lanes in 16 bits each, or in 32.
struct Lanes16 {
  typedef uint16_t Type __attribute__((vector_size(kVectorBytes / 2)));
};
using Bits16 = Lanes16::Type;
using Bits32 = Vector<uint32_t>;

inline Bits16 load_bits(const void* from) {
  Bits16 bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return bits;
}

// The intrinsics do what the generic code beside them does; it takes many instructions, though, and
// the compiler would pass halves of vectors through memory.
inline Vector<float> widen_vector(const BFloat16* from) {
#if defined(DILCONV_AVX512)
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(__mmask16(-1), __m256i(load_bits(from)));
  return Vector<float>(Bits32(wide) << 16);
#else
  return Vector<float>(__builtin_convertvector(load_bits(from), Bits32) << 16);
#endif
}

inline Vector<float> widen_vector(const Half* from) {
#if defined(DILCONV_AVX512)
  return Vector<float>(_mm512_maskz_cvtph_ps(__mmask16(-1), __m256i(load_bits(from))));
#else
  float values[kLanes<float>];
  for (int lane = 0; lane < kLanes<float>; ++lane) values[lane] = widen(from[lane]);
  return load(values);
#endif
}

inline void narrow_vector(Vector<float> values, BFloat16* to) {
  const Bits32 bits = Bits32(values);
  const Bits32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const Bits32 result = values == values ? rounded : Bits32{} + 0x7fc0;
#if defined(DILCONV_AVX512)
  const Bits16 words = Bits16(_mm512_maskz_cvtepi32_epi16(__mmask16(-1), __m512i(result)));
#else
  const Bits16 words = __builtin_convertvector(result, Bits16);
#endif
  __builtin_memcpy(to, &words, sizeof words);
}

inline void narrow_vector(Vector<float> values, Half* to) {
#if defined(DILCONV_AVX512)
  const Bits16 words = Bits16(_mm512_maskz_cvtps_ph(__mmask16(-1), __m512(values),
                                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  __builtin_memcpy(to, &words, sizeof words);
#else
  float array[kLanes<float>];
  store(array, values);
  for (int lane = 0; lane < kLanes<float>; ++lane) narrow(array[lane], to[lane]);
#endif
}

template <class T, class S>
inline Vector<T> load_widened(const S* from) {
  if constexpr (kSame<S, T>)
    return load(from);
  else
    return widen_vector(from);
}

template <class T, class S>
inline void store_narrowed(S* to, Vector<T> value) {
  if constexpr (kSame<S, T>)
    store(to, value);
  else
    narrow_vector(value, to);
}

// ---- parts of vectors: elements beyond the first `count` are neither read nor written

#if defined(DILCONV_AVX512)
// A bit for each of the first `count` lanes, of which there are more.
inline uint32_t first_lanes(int64_t count) { return (1u << count) - 1; }

inline __m512 load_part(const float* from, uint32_t lanes) {
  return _mm512_maskz_loadu_ps(__mmask16(lanes), from);
}
inline __m512d load_part(const double* from, uint32_t lanes) {
  return _mm512_maskz_loadu_pd(__mmask8(lanes), from);
}
template <class S>
inline __m256i load_part(const S* from, uint32_t lanes) {
  return _mm256_maskz_loadu_epi16(__mmask16(lanes), from);
}
inline void store_part(float* to, uint32_t lanes, const float* from) {
  _mm512_mask_storeu_ps(to, __mmask16(lanes), __m512(load(from)));
}
inline void store_part(double* to, uint32_t lanes, const double* from) {
  _mm512_mask_storeu_pd(to, __mmask8(lanes), __m512d(load(from)));
}
template <class S>
inline void store_part(S* to, uint32_t lanes, const S* from) {
  _mm256_mask_storeu_epi16(to, __mmask16(lanes), __m256i(load_bits(from)));
}
#endif

// Lanes beyond the elements that are read become zero.
template <class T, class S>
inline Vector<T> load_first(const S* from, int64_t count) {
  if (count >= kLanes<T>) return load_widened<T>(from);
  S part[kLanes<T>];
#if defined(DILCONV_AVX512)
  const auto loaded = load_part(from, first_lanes(count));
  __builtin_memcpy(part, &loaded, sizeof part);
#else
  __builtin_memset(part, 0, sizeof part);
  copy_short<int(sizeof part)>(part, 0, from, 0, 1, count);
#endif
  return load_widened<T>(part);
}

template <class T, class S>
inline void store_first(S* to, Vector<T> value, int64_t count) {
  if (count >= kLanes<T>) return store_narrowed<T>(to, value);
  S part[kLanes<T>];
  store_narrowed<T>(part, value);
#if defined(DILCONV_AVX512)
  store_part(to, first_lanes(count), part);
#else
  copy_short<int(sizeof part)>(to, 0, part, 0, 1, count);
#endif
}

// The indices 0 ... count - 1 of a vector's elements.
template <int... indices>
struct Indices {};

template <int count, int... e>
struct Count : Count<count - 1, count - 1, e...> {};
template <int... e>
struct Count<0, e...> {
  using Type = Indices<e...>;
};

#if defined(__clang__) || __GNUC__ >= 12
template <class V, int... e>
inline V every_second(V low, V high, Indices<e...>) {
  constexpr int half = sizeof...(e) / 2;
  return __builtin_shufflevector(low, high, (e < half ? 2 * e : 2 * e + 1)...);
}

// Every second element, `count` of them, at least a vector; none beyond the last is read.
template <class T>
inline void gather_second(T* to, const T* from, int64_t count) {
  constexpr int64_t n = kLanes<T>;
  for (int64_t i = 0; i < count; i += n) {
    const int64_t at = least(i, count - n);
    store(to + at, every_second(load(from + 2 * at), load(from + 2 * at + n - 1),
                                typename Count<int(n)>::Type()));
  }
}
#else
template <class T>
inline void gather_second(T* to, const T* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
}
#endif

// count elements, `step` apart in memory, become dense.
template <class T, class S>
inline void gather(T* to, const S* from, int64_t step, int64_t count) {
  if (step == 1) {
    if constexpr (kSame<T, S>) {
      copy_dense(to, from, count);
    } else {
      int64_t i = 0;
      for (; i + kLanes<T> <= count; i += kLanes<T>) store(to + i, load_widened<T>(from + i));
      for (; i < count; ++i) to[i] = widen(from[i]);
    }
    return;
  }
  if constexpr (kSame<T, S>)
    if (step == 2 && count >= kLanes<T>) return gather_second(to, from, count);
  for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i * step]);
}

// And back: dense sums become count elements, `step` apart.
template <class S, class T>
inline void scatter(S* to, int64_t step, const T* from, int64_t count) {
  if (step == 1) {
    if constexpr (kSame<T, S>) {
      copy_dense(to, from, count);
    } else {
      int64_t i = 0;
      for (; i + kLanes<T> <= count; i += kLanes<T>) store_narrowed<T>(to + i, load(from + i));
      for (; i < count; ++i) narrow(from[i], to[i]);
    }
    return;
  }
  if constexpr (!kSame<T, S>)
    for (; count >= kLanes<T>; count -= kLanes<T>, from += kLanes<T>, to += kLanes<T> * step) {
      S narrowed[kLanes<T>];
      store_narrowed<T>(narrowed, load(from));
      for (int64_t i = 0; i < kLanes<T>; ++i) to[i * step] = narrowed[i];
    }
  for (int64_t i = 0; i < count; ++i) narrow(from[i], to[i * step]);
}

template <class T>
inline void clear(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = T(0);
}

template <class T>
inline void clear_rows(T* to, int64_t pitch, int64_t rows, int64_t count) {
  for (; rows > 0; --rows, to += pitch)
    for (int64_t i = 0; i < count; ++i) to[i] = T(0);
}

// ---- transposition
// -------------------------------------------------------------------------------------------

#if defined(__clang__) || __GNUC__ >= 12
// Lanes in 16 bytes: shuffles within these, or of them as a whole, are the fast ones.
template <class V>
constexpr int kBlock = 16 / int(sizeof(V{}[0]));

// The low (half 0) or high halves of a's and b's blocks, their elements in turn.
template <int half, class V, int... e>
inline V zip(V a, V b, Indices<e...>) {
  constexpr int lanes = sizeof...(e), block = kBlock<V>;
  return __builtin_shufflevector(
      a, b, (e % 2 * lanes + e / block * block + half * block / 2 + e % block / 2)...);
}

// The even or (odd 1) odd blocks of a, then those of b.
template <int odd, class V, int... e>
inline V unzip(V a, V b, Indices<e...>) {
  constexpr int block = kBlock<V>, half = sizeof...(e) / 2;
  return __builtin_shufflevector(
      a, b, (e / half * 2 * half + (e % half / block * 2 + odd) * block + e % block)...);
}

// Transposes the squares of a block's lanes by as many rows.
template <int round = 1, int count, class V>
__attribute__((always_inline)) inline void zip_rows(V (&rows)[count]) {
  constexpr int block = kBlock<V>;
  if constexpr (round < block) {
    using All = typename Count<int(sizeof(V)) * block / 16>::Type;
    V next[count];
#pragma GCC unroll 16
    for (int r = 0; r < count; r += 2) {
      const int first = r / block * block + r % block / 2;
      next[r] = zip<0>(rows[first], rows[first + block / 2], All());
      next[r + 1] = zip<1>(rows[first], rows[first + block / 2], All());
    }
#pragma GCC unroll 16
    for (int r = 0; r < count; ++r) rows[r] = next[r];
    zip_rows<2 * round>(rows);
  }
}

// Then the squares among them.
template <int distance, int count, class V>
__attribute__((always_inline)) inline void unzip_rows(V (&rows)[count]) {
  if constexpr (distance < count) {
    using All = typename Count<int(sizeof(V)) * kBlock<V> / 16>::Type;
#pragma GCC unroll 16
    for (int r = 0; r < count; ++r)
      if (!(r & distance)) {
        const V a = rows[r], b = rows[r + distance];
        rows[r] = unzip<0>(a, b, All());
        rows[r + distance] = unzip<1>(a, b, All());
      }
    unzip_rows<2 * distance>(rows);
  }
}

template <int lanes, class V>
__attribute__((always_inline)) inline void transpose_rows(V (&rows)[lanes]) {
  zip_rows(rows);
  unzip_rows<kBlock<V>>(rows);
}

// to(q)[c] = from(c)[q] for c < rows and q < columns, at most kLanes<T> each; to(q)[c] = 0 for
// other c < written.
template <class T, class From, class To>
inline void transpose_lanes(int64_t rows, int64_t columns, int64_t written, const From& from,
                            const To& to) {
  constexpr int lanes = kLanes<T>;
  Vector<T> square[lanes];
  if (rows == lanes && columns == lanes) {
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r) square[r] = load_widened<T>(from(r));
    transpose_rows(square);
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r) store_narrowed<T>(to(r), square[r]);
    return;
  }
#pragma GCC unroll 16
  for (int r = 0; r < lanes; ++r)
    square[r] = r < rows ? load_first<T>(from(r), columns) : Vector<T>{};
  transpose_rows(square);
#pragma GCC unroll 16
  for (int r = 0; r < lanes; ++r)
    if (r < columns) store_first<T>(to(r), square[r], written);
}
#else
template <class T, class From, class To>
inline void transpose_lanes(int64_t rows, int64_t columns, int64_t written, const From& from,
                            const To& to) {
  for (int64_t q = 0; q < columns; ++q)
    for (int64_t c = 0; c < written; ++c) narrow(c < rows ? T(widen(from(c)[q])) : T(0), to(q)[c]);
}
#endif

// The same with rows and columns an equal distance apart.
template <class T, class S, class R>
inline void transpose(S* to, int64_t to_pitch, const R* from, int64_t from_pitch, int64_t rows,
                      int64_t columns, int64_t written) {
  transpose_lanes<T>(
      rows, columns, written, [&](int64_t r) { return from + r * from_pitch; },
      [&](int64_t q) { return to + q * to_pitch; });
}

// Lane v of the result is the sum of the lanes of vector v, of `count` vectors; zero beyond.
template <class T>
inline Vector<T> add_lanes(const T* vectors, int64_t count) {
  constexpr int lanes = kLanes<T>;
  T turned[lanes * lanes];
  transpose<T>(turned, lanes, vectors, lanes, count, lanes, lanes);
  Vector<T> total = load(turned);
  for (int lane = 1; lane < lanes; ++lane) total += load(turned + lane * lanes);
  return total;
}

// to[c * plane + q] = from[q * pixel_stride + c * channel_stride]: pixels of a row, each channel to
// its plane.
template <class T, class S>
inline void copy_to_planes(T* to, int64_t plane, const S* from, int64_t pixel_stride,
                           int64_t channel_stride, int64_t pixels, int64_t channels) {
  constexpr int64_t lanes = kLanes<T>, kFewest = 4, kLine = 64 / int64_t(sizeof(S));
  if (channel_stride == 1 && pixel_stride != 1 && channels >= kFewest) {
    for (int64_t c = 0; c < channels; c += lanes)
      for (int64_t q = 0; q < pixels; q += lanes) {
        const int64_t count = least(lanes, pixels - q);
        transpose<T>(to + c * plane + q, plane, from + q * pixel_stride + c, pixel_stride, count,
                     least(lanes, channels - c), count);
      }
    return;
  }
  for (int64_t c = 0; c < channels; ++c, to += plane, from += channel_stride) {
    // The next channel's pixels come from afar.
    for (int64_t q = 0; q < pixels && pixel_stride == 1; q += kLine)
      __builtin_prefetch(from + channel_stride + q);
    gather(to, from, pixel_stride, pixels);
  }
}
