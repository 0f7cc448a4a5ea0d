// Vectors whose lanes are picked from another's.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// As wide as T.
template <class T>
struct LaneIndexOf;
template <>
struct LaneIndexOf<float> {
  using Type = Vector<int32_t>;
};
template <>
struct LaneIndexOf<double> {
  using Type = Vector<int64_t>;
};
template <class T>
using LaneIndex = typename LaneIndexOf<T>::Type;

// Lane l of the result is lane picked[l] of the value.
// Masked, because GCC 12 warns of the intrinsics without.
#if defined(DILCONV_AVX512)
inline Vector<float> permute_lanes(Vector<float> value, LaneIndex<float> picked) {
  return Vector<float>(_mm512_maskz_permutexvar_ps(__mmask16(-1), __m512i(picked), __m512(value)));
}
inline Vector<double> permute_lanes(Vector<double> value, LaneIndex<double> picked) {
  return Vector<double>(_mm512_maskz_permutexvar_pd(__mmask8(-1), __m512i(picked), __m512d(value)));
}
#elif defined(DILCONV_AVX2)
inline Vector<float> permute_lanes(Vector<float> value, LaneIndex<float> picked) {
  return Vector<float>(_mm256_permutevar8x32_ps(__m256(value), __m256i(picked)));
}
inline Vector<double> permute_lanes(Vector<double> value, LaneIndex<double> picked) {
  // Of 64 bits there are no such instructions: halves are picked.
  const LaneIndex<double> halves = picked * 2 | (picked * 2 + 1) << 32;
  return Vector<double>(_mm256_permutevar8x32_ps(__m256(value), __m256i(halves)));
}
#else
template <class V, class Index>
inline V permute_lanes(V value, Index picked) {
  V result;
  for (int l = 0; l < int(sizeof(V) / sizeof(value[0])); ++l) result[l] = value[picked[l]];
  return result;
}
#endif
