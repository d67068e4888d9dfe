// What native.cpp computes with: 16 lanes, products of bytes, rounding and norms of rows, attention of one head.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

namespace {

// ---- Lanes: 16 numbers at once. The compiler's vectors work on any machine; where it finds no good instruction by
// itself, AVX-512 is asked for by name and plain loops stand in elsewhere.

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef Floats FloatsAt __attribute__((aligned(4), may_alias));
typedef Ints IntsAt __attribute__((aligned(4), may_alias));
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef Bytes BytesAt __attribute__((aligned(1), may_alias));

constexpr int LANES = 16;
inline int padded(int n) { return (n + LANES - 1) / LANES * LANES; }

constexpr int QUAD = 4;  // int8 products that one instruction adds up in a lane

inline Floats load(const float* p) { return *reinterpret_cast<const FloatsAt*>(p); }
inline Ints load(const int32_t* p) { return *reinterpret_cast<const IntsAt*>(p); }
inline void store(float* p, Floats x) { *reinterpret_cast<FloatsAt*>(p) = x; }
inline Floats all(float x) { return x - Floats{}; }

inline Ints load(const int8_t* p) {
    const Bytes x = *reinterpret_cast<const BytesAt*>(p);
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_cvtepi8_epi32((__m128i)x);
#else
    return __builtin_convertvector(x, Ints);
#endif
}

inline Ints load(const uint8_t* p) {
    const Bytes x = *reinterpret_cast<const BytesAt*>(p);
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_cvtepu8_epi32((__m128i)x);
#else
    return __builtin_convertvector(x, Ints) & 255;
#endif
}

inline void store(uint8_t* p, Ints x) {
#if defined(__AVX512VNNI__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)x));
#else
    *reinterpret_cast<BytesAt*>(p) = __builtin_convertvector(x, Bytes);
#endif
}

inline Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

inline Floats largest(Floats a, Floats b) {
#if defined(__AVX512VNNI__)
    return _mm512_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}

inline Floats smallest(Floats a, Floats b) {
#if defined(__AVX512VNNI__)
    return _mm512_min_ps(a, b);
#else
    return a < b ? a : b;
#endif
}

inline Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

// to the nearest, ties to even, as the instruction does
inline Ints rounded(Floats x) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_cvtps_epi32(x);
#else
    const float magic = 12582912.0f;  // 1.5 * 2^23: the sum has no bits left for a fraction
    return __builtin_convertvector((x + magic) - magic, Ints);
#endif
}

// what half of the lanes hold, in the place of the other half: after four such steps lane 0 has met all
inline float sum(Floats x) {
    x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return x[0] + x[1];
}

inline float largest(Floats x) {
    x = largest(x, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    x = largest(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    x = largest(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    return std::max(x[0], x[1]);
}

// four unsigned bytes times four signed ones, added to each lane
inline Ints multiply_add(Ints acc, Ints unsigned_bytes, Ints signed_bytes) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
#else
    uint8_t a[LANES * QUAD];
    int8_t b[LANES * QUAD];
    memcpy(a, &unsigned_bytes, sizeof a);
    memcpy(b, &signed_bytes, sizeof b);
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < QUAD; j++) acc[i] += a[i * QUAD + j] * b[i * QUAD + j];
    return acc;
#endif
}

// 2^x for x <= 0, to 2e-6 of it; what is smaller than 2^-126 comes out as that
inline Floats exp2_of(Floats x) {
    x = largest(x, all(-126.0f));
    const Ints whole = rounded(x);
    const Floats f = x - to_floats(whole);
    Floats p = all(1.3333558e-3f);
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (Floats)((Ints)p + (whole << 23));
}

// x * Phi(x), Phi as 1/2 plus an odd polynomial fitted for the least largest error of the product: 9.4e-5 anywhere
inline Floats gelu(Floats x) {
    const Floats z = largest(smallest(x, all(4.1f)), all(-4.1f));
    const Floats t = z * z;
    Floats p = all(-9.01579644e-10f);
    p = p * t + 7.87753009e-8f;
    p = p * t - 3.00366264e-6f;
    p = p * t + 6.61828599e-5f;
    p = p * t - 9.43652354e-4f;
    p = p * t + 9.26428568e-3f;
    p = p * t - 6.54553771e-2f;
    p = p * t + 3.98416132e-1f;
    return x * (z * p + 0.5f);
}

// ---- Products.
//
// The instruction multiplies unsigned bytes by signed ones, so activations are kept as x + 128, and 128 times the sum
// of an output's weights is taken off again where the sum starts (or, behind a GELU, what the floor adds in the bias).
// Weights lie in panels of 64 outputs (the last may have 16, 32 or 48), four inputs of each output together: a tile of
// 6 rows by a panel keeps 24 of the 32 registers busy as sums and reads each weight once for 6 rows.

constexpr int ZERO = 128;              // the byte that stands for 0
constexpr float GELU_FLOOR = -0.1702f;  // or for this, in the rows that a GELU has given
constexpr int TILE_ROWS = 6;
constexpr int PANEL = 4;  // in units of 16 outputs

// some outputs of a linear layer, as a function of some of its inputs
struct Packed {
    int inputs = 0, strips = 0;  // strips of 16 outputs
    const int8_t* weight = nullptr;
    const int32_t* start = nullptr;
    const float* scale = nullptr;
    const float* bias = nullptr;
};

// rows of bytes with a scale each
struct Rounded {
    const uint8_t* bytes;
    int width;
    const float* scale;
};

// where sums go: out = sum * scales + bias, through the GELU if asked, plus `add` if given, whose rows are as wide
struct Target {
    float* out;
    int width;
    const float* add = nullptr;
    bool with_gelu = false;
};

// work(0) to work(N - 1), the number known to the compiler, which keeps only arrays so indexed in registers
template <class Work, int... I>
inline void each(std::integer_sequence<int, I...>, Work&& work) {
    (work(std::integral_constant<int, I>{}), ...);
}
template <int N, class Work>
inline void each(Work&& work) {
    each(std::make_integer_sequence<int, N>{}, work);
}

template <int ROWS, int STRIPS>
void tile(const uint8_t* a, int width, const float* row_scale, const Packed& w, int strip, const int8_t* weight,
          Target to) {
    Ints acc[ROWS][STRIPS];
    each<STRIPS>([&](auto s) {
        const Ints start = load(w.start + (strip + s) * LANES);
        each<ROWS>([&](auto r) { acc[r][s] = start; });
    });
    for (int k = 0; k < w.inputs; k += QUAD, weight += STRIPS * LANES * QUAD) {
        Ints b[STRIPS];
        each<STRIPS>([&](auto s) {
            Ints x = *reinterpret_cast<const Ints*>(weight + s * LANES * QUAD);
#if defined(__AVX512VNNI__)
            asm("" : "+v"(x));  // or the compiler reads it again for each row of a small tile
#endif
            b[s] = x;
        });
        each<ROWS>([&](auto r) {
            int32_t four;
            memcpy(&four, a + r * width + k, sizeof four);
            const Ints x = four - Ints{};
            each<STRIPS>([&](auto s) { acc[r][s] = multiply_add(acc[r][s], x, b[s]); });
        });
    }
    each<STRIPS>([&](auto s) {
        const int n = (strip + s) * LANES;
        const Floats scale = load(w.scale + n), bias = load(w.bias + n);
        each<ROWS>([&](auto r) {
            Floats v = to_floats(acc[r][s]) * (scale * row_scale[r]) + bias;
            if (to.with_gelu) v = gelu(v);
            if (to.add) v += load(to.add + r * to.width + n);
            store(to.out + r * to.width + n, v);
        });
    });
}

using Tile = void (*)(const uint8_t*, int, const float*, const Packed&, int, const int8_t*, Target);
template <int R>
constexpr Tile TILES_OF[PANEL] = {tile<R, 1>, tile<R, 2>, tile<R, 3>, tile<R, 4>};
constexpr const Tile* TILES[TILE_ROWS] = {TILES_OF<1>, TILES_OF<2>, TILES_OF<3>, TILES_OF<4>, TILES_OF<5>, TILES_OF<6>};

// Calls work(first row, rows) for as few blocks of at most `most` rows as there can be, none much smaller than another.
// The first is the largest: it fetches the weights, the others find them in the first cache.
template <class Work>
inline void in_blocks(int rows, int most, Work&& work) {
    const int blocks = (rows + most - 1) / most;
    for (int b = 0, first = 0; b < blocks; b++) {
        const int end = (rows * (b + 1) + blocks - 1) / blocks;
        work(first, end - first);
        first = end;
    }
}

// Strips [strip, end) of the outputs; both at the edge of a panel.
void product(const Packed& w, int strip, int end, Rounded a, int rows, Target to) {
    for (; strip < end; strip += PANEL) {  // a panel stays in the first cache for all rows
        const int strips = std::min(PANEL, w.strips - strip);
        const int8_t* weight = w.weight + size_t(strip) * LANES * w.inputs;
        in_blocks(rows, TILE_ROWS, [&](int first, int count) {
            Target here = to;
            here.out += size_t(first) * to.width;
            if (to.add) here.add += size_t(first) * to.width;
            TILES[count - 1][strips - 1](a.bytes + size_t(first) * a.width, a.width, a.scale + first, w, strip, weight,
                                         here);
        });
    }
}

inline void product(const Packed& w, Rounded a, int rows, Target to) { product(w, 0, w.strips, a, rows, to); }

// The same in fp32, for the small products of attention: out[r][n] = sum over k of a[r][k] * b[k][n], the strips of n.
struct Strided {
    const float* at;
    int row, step;  // from one r to the next, from one k to the next
};

template <int ROWS, int STRIPS>
inline void float_tile(Strided a, const float* b, int b_width, int inputs, float* out, int width) {
    Floats acc[ROWS][STRIPS];
    each<ROWS>([&](auto r) { each<STRIPS>([&](auto s) { acc[r][s] = Floats{}; }); });
    for (int k = 0; k < inputs; k++, a.at += a.step, b += b_width) {
        Floats x[STRIPS];
        each<STRIPS>([&](auto s) { x[s] = load(b + s * LANES); });
        each<ROWS>([&](auto r) { each<STRIPS>([&](auto s) { acc[r][s] += a.at[r * a.row] * x[s]; }); });
    }
    each<ROWS>([&](auto r) { each<STRIPS>([&](auto s) { store(out + r * width + s * LANES, acc[r][s]); }); });
}

template <int ROWS>
void float_rows(Strided a, const float* b, int b_width, int inputs, int strips, float* out, int width) {
    int s = 0;
    for (; s + 2 <= strips; s += 2) float_tile<ROWS, 2>(a, b + s * LANES, b_width, inputs, out + s * LANES, width);
    if (s < strips) float_tile<ROWS, 1>(a, b + s * LANES, b_width, inputs, out + s * LANES, width);
}

using FloatRows = void (*)(Strided, const float*, int, int, int, float*, int);
constexpr FloatRows FLOAT_ROWS[TILE_ROWS] = {float_rows<1>, float_rows<2>, float_rows<3>,
                                             float_rows<4>, float_rows<5>, float_rows<6>};

void float_product(Strided a, const float* b, int b_width, int inputs, int rows, int strips, float* out, int width) {
    in_blocks(rows, TILE_ROWS, [&](int first, int count) {
        const Strided here{a.at + size_t(first) * a.row, a.row, a.step};
        FLOAT_ROWS[count - 1](here, b, b_width, inputs, strips, out + size_t(first) * width, width);
    });
}

// ---- Rows: rounding and layer norms. Widths are multiples of 16.

// a sum over the vectors of a row in two chains, since an addition waits for the one before it
template <class Term>
inline Floats sum_of(int width, Term&& term) {
    Floats even = {}, odd = {};
    int i = 0;
    for (; i + 2 * LANES <= width; i += 2 * LANES) even += term(i), odd += term(i + LANES);
    if (i < width) even += term(i);
    return even + odd;
}

void round_row(const float* x, int width, uint8_t* bytes, float* scale) {
    Floats most = {};
    for (int i = 0; i < width; i += LANES) most = largest(most, magnitude(load(x + i)));
    const float peak = largest(most);
    const Floats inverse = all(peak > 0 ? 127 / peak : 0);
    *scale = peak / 127;
    for (int i = 0; i < width; i += LANES) store(bytes + i, rounded(load(x + i) * inverse + float(ZERO)));
}

// What comes out of a GELU is never below GELU_FLOOR, so all of a byte can be used for what is above.
void round_gelu_row(const float* x, int width, uint8_t* bytes, float* scale) {
    Floats most = load(x);
    for (int i = LANES; i < width; i += LANES) most = largest(most, load(x + i));
    const float range = largest(most) - GELU_FLOOR;
    const Floats inverse = all(255 / range), zero = inverse * -GELU_FLOOR;
    *scale = range / 255;
    for (int i = 0; i < width; i += LANES) store(bytes + i, rounded(load(x + i) * inverse + zero));
}

struct Norm {
    const float* weight;
    const float* bias;
    float epsilon;
};

// out = layer norm of x (+ add, if given), and its rounded form; out may be x
void norm_row(const float* x, const float* add, const Norm& norm, int width, float* out, uint8_t* bytes, float* scale) {
    const Floats total = sum_of(width, [&](int i) {
        const Floats v = add ? load(x + i) + load(add + i) : load(x + i);
        store(out + i, v);
        return v;
    });
    const Floats mean = all(sum(total) / width);
    const Floats squares = sum_of(width, [&](int i) {
        const Floats v = load(out + i) - mean;
        return v * v;
    });
    const Floats factor = all(1 / __builtin_sqrtf(sum(squares) / width + norm.epsilon));
    for (int i = 0; i < width; i += LANES)
        store(out + i, (load(out + i) - mean) * factor * load(norm.weight + i) + load(norm.bias + i));
    round_row(out, width, bytes, scale);
}

// ---- Attention.

// Turn 16 columns of `rows` rows, at most 16, into rows of 16, zeros behind them.
void transpose(const float* from, int width, int rows, float* to, int to_width) {
    Floats x[LANES], y[LANES];
    for (int i = 0; i < LANES; i++) x[i] = i < rows ? load(from + size_t(i) * width) : Floats{};
    // four rounds of dealing two rows out in turn: after them lane and row have changed places
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < LANES / 2; i++) {
            const Floats a = x[i], b = x[i + LANES / 2];
            y[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            y[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        for (int i = 0; i < LANES; i++) x[i] = y[i];
    }
    for (int i = 0; i < LANES; i++) store(to + size_t(i) * to_width, x[i]);
}

// The softmax of each column of `rows` scores that are already in units of log 2, in place. Columns lie in lanes, so
// nothing has to be summed up across lanes and no padding takes part in a sum.
void softmax(float* scores, int rows, int width) {
    for (int c = 0; c < width; c += LANES) {
        Floats most = load(scores + c), total = {};
        for (int r = 1; r < rows; r++) most = largest(most, load(scores + r * width + c));
        for (int r = 0; r < rows; r++) {
            const Floats e = exp2_of(load(scores + r * width + c) - most);
            total += e;
            store(scores + r * width + c, e);
        }
        const Floats inverse = all(1) / total;
        for (int r = 0; r < rows; r++) store(scores + r * width + c, load(scores + r * width + c) * inverse);
    }
}

constexpr int QUERIES = 32;  // that attend at once: their scores stay in the first cache for rows of up to 200 tokens

// out[tokens][size] of one head; q, k and v are its columns in rows of `width`. Turned holds QUERIES * size numbers,
// scores QUERIES * tokens: scores[key][query].
void attend(const float* q, const float* k, const float* v, int width, int tokens, int size, float* turned,
            float* scores, float* out, int out_width) {
    for (int first = 0; first < tokens; first += QUERIES) {
        const int queries = std::min(QUERIES, tokens - first), wide = padded(queries);
        for (int t = 0; t < queries; t += LANES)
            for (int d = 0; d < size; d += LANES)
                transpose(q + size_t(first + t) * width + d, width, std::min(LANES, queries - t), turned + d * wide + t,
                          wide);
        float_product({k, width, 1}, turned, wide, size, tokens, wide / LANES, scores, wide);
        softmax(scores, tokens, wide);
        float_product({scores, 1, wide}, v, width, tokens, queries, size / LANES, out + size_t(first) * out_width,
                      out_width);
    }
}

}  // namespace
