// An int8 program for encoders laid out like BERT, for short inputs that come one at a time.
//
// Weights are int8 with one scale for each output; activations are rounded to int8 as they come, with one scale for
// each token (and, before the second product of a module, for each of a few fixed groups of its inputs, so that whoever
// computed a group can round it at once). Products add up in int32, all else is fp32. Every sum has one order, whatever
// the number of threads, so the answer to a row is the same bit for bit.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "native_kernels.h"
#include "native_team.h"

namespace {

// ---- Memory: everything a session holds, in pages of 2 MB where the system has them, all given back at once.

class Arena {
public:
    template <class T>
    T* room(size_t count) {
        const size_t size = (std::max<size_t>(count, 1) * sizeof(T) + 63) / 64 * 64;
        if (size > left_) {
            const size_t chunk = (size + PAGE - 1) / PAGE * PAGE;
            blocks_.emplace_back(static_cast<char*>(::operator new(chunk, std::align_val_t(PAGE))));
            next_ = blocks_.back().get();
            left_ = chunk;
#if defined(__linux__)
            madvise(next_, chunk, MADV_HUGEPAGE);  // 430 small pages for a MiniLM layer are more than a core remembers
#endif
        }
        T* found = reinterpret_cast<T*>(next_);
        next_ += size;
        left_ -= size;
        return found;
    }

    template <class T>
    T* zeros(size_t count) {
        return static_cast<T*>(memset(room<T>(count), 0, count * sizeof(T)));
    }

private:
    static constexpr size_t PAGE = size_t(2) << 20;
    struct Free {
        void operator()(char* p) const { ::operator delete(p, std::align_val_t(PAGE)); }
    };
    std::vector<std::unique_ptr<char, Free>> blocks_;
    char* next_ = nullptr;
    size_t left_ = 0;
};

// ---- Model: what the caller hands over, packed.

struct Linear {  // as it lies in the file: int8 [outputs][inputs], one scale and bias for each output
    const int8_t* weight;
    const float* scale;
    const float* bias;
    int outputs, inputs;
};

// Pack some outputs, padded to whole strips, for inputs [from, from + inputs), padded likewise; the bias only if asked,
// for of several groups of inputs one brings it; `floored` if the inputs come from a GELU.
Packed pack(Arena& arena, const Linear& whole, const std::vector<int>& outputs, int from, int inputs, bool bias,
            bool floored = false) {
    Packed to;
    to.strips = padded(int(outputs.size())) / LANES;
    to.inputs = padded(inputs);
    const size_t columns = size_t(to.strips) * LANES;
    auto* weight = arena.zeros<int8_t>(columns * to.inputs);
    auto* start = arena.zeros<int32_t>(columns);
    auto* scale = arena.zeros<float>(columns);
    auto* shift = arena.zeros<float>(columns);
    for (int n = 0; n < int(outputs.size()); n++) {
        const int o = outputs[n], panel = n / LANES / PANEL * PANEL;
        const int wide = std::min(PANEL, to.strips - panel) * LANES;
        int8_t* column = weight + size_t(panel) * LANES * to.inputs + (n - panel * LANES) * QUAD;
        int total = 0;
        for (int k = 0; k < std::min(inputs, whole.inputs - from); k++) {
            const int8_t w = whole.weight[size_t(o) * whole.inputs + from + k];
            column[size_t(k / QUAD) * wide * QUAD + k % QUAD] = w;
            total += w;
        }
        scale[n] = whole.scale[o];
        if (bias) shift[n] = whole.bias[o];
        if (floored) shift[n] += GELU_FLOOR * total * scale[n];
        else start[n] = -ZERO * total;
    }
    to.weight = weight, to.start = start, to.scale = scale, to.bias = shift;
    return to;
}

void append(std::vector<int>& to, int first, int end) {
    for (int i = first; i < end; i++) to.push_back(i);
}

std::vector<int> numbers(int first, int end) {
    std::vector<int> found;
    append(found, first, end);
    return found;
}

// n things dealt to `parts`: the first thing of part p; it ends where part p + 1 begins
inline int share(int n, int p, int parts) { return int(int64_t(n) * p / parts); }

constexpr int GROUP = 384;  // most inputs in a group: its panels, 24 kB, leave the first cache room for the rows

// Where groups begin that are rounded each by itself, the last edge being the end: four groups, or four times as many
// as keep each within GROUP, so that two and four threads can deal them out evenly.
std::vector<int> group_edges(int units, int unit) {
    const int most = std::max(1, GROUP / unit), groups = std::min(units, 4 * ((units + 4 * most - 1) / (4 * most)));
    std::vector<int> edges = {0};
    for (int g = 1; g <= groups; g++) edges.push_back(share(units, g, groups) * unit);
    return edges;
}

struct Layer {
    int heads, size, neurons;
    bool pooled;
    const float *attention_bias, *neuron_bias;  // all that is left of a module without heads or neurons
    Norm after_attention, after_neurons;
    std::vector<int> head_edges, neuron_edges;    // where groups begin: outputs of heads, neurons
    std::vector<Packed> projections;              // one a group: query, key and value of its heads
    std::vector<Packed> queries, keys, values;    // of a pooled layer, one a head
    const float* key_scale;                       // of a pooled layer
    std::vector<Packed> context, up, down;        // one a group

    int head_groups() const { return int(head_edges.size()) - 1; }
    int neuron_groups() const { return int(neuron_edges.size()) - 1; }
};

// Reads the caller's list of tensors in the order in which `native.py` writes them.
struct Reader {
    const void* const* next;
    Arena& arena;

    template <class T>
    const T* borrow() {
        return static_cast<const T*>(*next++);
    }
    template <class T>
    const T* copy(size_t count) {
        return static_cast<const T*>(memcpy(arena.zeros<T>(count), *next++, count * sizeof(T)));
    }
    Norm norm(int width, float epsilon) {
        const float* weight = copy<float>(width);
        return {weight, copy<float>(width), epsilon};
    }
    Linear linear(int outputs, int inputs) {
        const auto* weight = borrow<int8_t>();
        const auto* scale = borrow<float>();
        return {weight, scale, borrow<float>(), outputs, inputs};
    }
};

void pack_attention(Arena& arena, Layer& layer, const Linear& in, const Linear& out) {
    const int size = layer.size, width = layer.heads * size, hidden = out.outputs;
    for (int g = 0; g < layer.head_groups(); g++) {
        const int first = layer.head_edges[g], end = layer.head_edges[g + 1];
        layer.context.push_back(pack(arena, out, numbers(0, hidden), first, end - first, g == 0));
        if (layer.pooled) continue;
        std::vector<int> outputs;
        for (int part = 0; part < 3; part++) append(outputs, part * width + first, part * width + end);
        layer.projections.push_back(pack(arena, in, outputs, 0, hidden, true));
    }
    if (!layer.pooled) return;
    const std::vector<float> ones(hidden, 1.0f);
    std::vector<int8_t> turned(size_t(hidden) * size);
    for (int query = 0; query < width; query += size) {
        const int key = width + query, value = 2 * width + query;
        for (int i = 0; i < hidden; i++)
            for (int d = 0; d < size; d++) turned[size_t(i) * size + d] = in.weight[size_t(key + d) * hidden + i];
        const Linear back{turned.data(), ones.data(), nullptr, hidden, size};
        layer.queries.push_back(pack(arena, in, numbers(query, query + size), 0, hidden, true));
        layer.keys.push_back(pack(arena, back, numbers(0, hidden), 0, size, false));
        layer.values.push_back(pack(arena, in, numbers(value, value + size), 0, hidden, true));
    }
    float* scale = arena.zeros<float>(width);
    layer.key_scale = scale;
    memcpy(scale, in.scale + width, width * sizeof *scale);
}

void pack_neurons(Arena& arena, Layer& layer, const Linear& up, const Linear& down) {
    for (int g = 0; g < layer.neuron_groups(); g++) {
        const int first = layer.neuron_edges[g], end = layer.neuron_edges[g + 1];
        layer.up.push_back(pack(arena, up, numbers(first, std::min(end, layer.neurons)), 0, up.inputs, true));
        layer.down.push_back(pack(arena, down, numbers(0, down.outputs), first, end - first, g == 0, true));
    }
}

// ---- Program: one row of token ids from embedding to logits.
//
// Attention is dealt out by heads; all else by rows of the input, so that between two attentions nothing goes from core
// to core and nobody waits: a line of memory that another core wrote costs as much as hundreds of products. Once a
// pooled layer has left one row, its products are dealt out by outputs.

struct Sizes {
    int threads, hidden, vocabulary, longest, labels, layers;
};

class Session {
public:
    Session(const int64_t* sizes, float epsilon, const void* const* tensors)
        : is_{int(sizes[0]), int(sizes[1]), int(sizes[2]), int(sizes[3]), int(sizes[4]), int(sizes[5])},
          team_(is_.threads, [](void* self, Team::Walk& walk) { static_cast<Session*>(self)->walk(walk); }, this) {
        Reader from{tensors, arena_};
        const int hidden = is_.hidden;
        word_ = from.copy<int8_t>(size_t(is_.vocabulary) * hidden);
        word_scale_ = from.copy<float>(is_.vocabulary);
        position_ = from.copy<float>(size_t(is_.longest) * hidden);
        after_embedding_ = from.norm(hidden, epsilon);
        for (int i = 0; i < is_.layers; i++) {
            const int64_t* shape = sizes + 6 + 4 * i;
            Layer layer{};
            layer.heads = int(shape[0]), layer.size = int(shape[1]), layer.neurons = int(shape[2]);
            layer.pooled = shape[3];
            layer.head_edges = group_edges(layer.heads, layer.size);
            layer.neuron_edges = group_edges((layer.neurons + LANES * PANEL - 1) / (LANES * PANEL), LANES * PANEL);
            for (int& edge : layer.neuron_edges) edge = std::min(edge, padded(layer.neurons));
            layer.attention_bias = from.copy<float>(hidden);
            if (const int width = layer.heads * layer.size) {
                const Linear in = from.linear(3 * width, hidden);
                Linear out{from.borrow<int8_t>(), from.borrow<float>(), layer.attention_bias, hidden, width};
                pack_attention(arena_, layer, in, out);
            }
            layer.after_attention = from.norm(hidden, epsilon);
            layer.neuron_bias = from.copy<float>(hidden);
            if (layer.neurons) {
                const Linear up = from.linear(layer.neurons, hidden);
                const Linear down{from.borrow<int8_t>(), from.borrow<float>(), layer.neuron_bias, hidden,
                                  layer.neurons};
                pack_neurons(arena_, layer, up, down);
            }
            layer.after_neurons = from.norm(hidden, epsilon);
            const int64_t weights = int64_t(hidden) * (4 * layer.heads * layer.size + 2 * layer.neurons);
            (layer.pooled ? once_ : each_row_) += weights;
            layers_.push_back(std::move(layer));
        }
        const auto* classifier = from.borrow<float>();
        pack_classifier(classifier, from.borrow<float>());
        take_room();
        team_.start();
    }

    enum { OK = 0, BAD_LENGTH = 1, BAD_TOKEN = 2 };

    enum Group { EMBEDDING, ATTENTION, FEED_FORWARD, NORM, HEAD, GROUPS };

    // As `row`, with the seconds of each group added to `spent`: the mean over threads, without their waiting.
    int timed_row(const int32_t* ids, int tokens, float* logits, double* spent) {
        for (Own& own : own_) std::fill(own.spent, own.spent + GROUPS, 0.0);
        timed_ = true;
        const int status = row(ids, tokens, logits);
        timed_ = false;
        for (const Own& own : own_)
            for (int g = 0; g < GROUPS; g++) spent[g] += own.spent[g] / is_.threads;
        return status;
    }

    int row(const int32_t* ids, int tokens, float* logits) {
        if (tokens < 1 || tokens > is_.longest) return BAD_LENGTH;
        for (int t = 0; t < tokens; t++)
            if (ids[t] < 0 || ids[t] >= is_.vocabulary) return BAD_TOKEN;
        std::lock_guard<std::mutex> hold(one_call_);
        ids_ = ids, tokens_ = tokens, logits_ = logits;
        // a single row's products wait for the weights and take three times as long
        const bool small = tokens * each_row_ + 3 * once_ < WORTH_WAKING;
        team_.call(is_.threads == 1 || (small && team_.asleep()));
        return OK;
    }

private:
    // multiplications: 20 us of them on one Zen 4 core, less than it takes until a helper that sleeps is at work
    static constexpr int64_t WORTH_WAKING = 4'000'000;
    static constexpr int PARTS = 4;  // in which rows are summed up for their mean

    struct Inside {  // of a module: rows of bytes, and a scale for each row of each group
        uint8_t* bytes;
        int width;
        float* scale;
    };

    struct Own {  // what a slice works in
        float *mean, *row;  // of all rows of a layer's input; the one row of a pooled layer
        uint8_t* bytes;
        float* scale;
        float* scratch;
        std::chrono::steady_clock::time_point since;  // of a timed call: when its slice was last looked at,
        double spent[GROUPS];                         // and its seconds by group
    };

    void pack_classifier(const float* weight, const float* bias) {
        const int strips = padded(is_.labels) / LANES, hidden = is_.hidden;
        float* packed = arena_.zeros<float>(size_t(strips) * hidden * LANES);
        float* shift = arena_.zeros<float>(strips * LANES);
        for (int n = 0; n < is_.labels; n++) {
            shift[n] = bias[n];
            for (int k = 0; k < hidden; k++)
                packed[(size_t(n / LANES) * hidden + k) * LANES + n % LANES] = weight[size_t(n) * hidden + k];
        }
        classifier_ = packed, classifier_bias_ = shift;
    }

    void take_room() {
        size_t width = LANES, neurons = LANES, groups = 1, group = GROUP, heads = 1;
        for (const Layer& layer : layers_) {
            width = std::max<size_t>(width, layer.heads * layer.size);
            heads = std::max<size_t>(heads, layer.heads);
            neurons = std::max<size_t>(neurons, padded(layer.neurons));
            groups = std::max<size_t>({groups, layer.head_edges.size(), layer.neuron_edges.size()});
            group = std::max<size_t>(group, layer.size);
        }
        const size_t rows = is_.longest, hidden = is_.hidden;
        hidden_ = arena_.room<float>(rows * hidden);
        summed_ = arena_.room<float>(rows * hidden);
        bytes_ = arena_.room<uint8_t>(rows * hidden);
        scale_ = arena_.room<float>(rows);
        context_ = {arena_.room<uint8_t>(rows * width), int(width), arena_.room<float>(rows * groups)};
        grown_ = {arena_.room<uint8_t>(rows * neurons), int(neurons), arena_.room<float>(rows * groups)};
        part_ = arena_.room<float>(PARTS * hidden);
        const size_t attention = rows * group * 4 + QUERIES * (group + rows);
        const size_t pooled = rows * hidden + 2 * hidden * heads + rows * padded(int(heads)) + 2 * width;
        for (int s = 0; s < is_.threads; s++)
            own_.push_back({arena_.room<float>(hidden), arena_.room<float>(hidden), arena_.room<uint8_t>(hidden),
                            arena_.room<float>(1), arena_.room<float>(std::max(attention, pooled)), {}, {}});
    }

    // A slice begins a phase, and ends work that belongs to a group. One branch each where nothing is timed.
    void start_clock(int s) {
        if (timed_) own_[s].since = std::chrono::steady_clock::now();
    }
    void book(int s, Group group) {
        if (!timed_) return;
        const auto now = std::chrono::steady_clock::now();
        own_[s].spent[group] += std::chrono::duration<double>(now - own_[s].since).count();
        own_[s].since = now;
    }

    void walk(Team::Walk& walk) {
        const size_t count = layers_.size();
        // layers without attention ask for nothing from other rows
        const auto go_on = [&](int s, size_t i) {
            for (; i < count && !layers_[i].pooled && !layers_[i].heads; i++) transform(layers_[i], s);
            if (i == count || layers_[i].pooled) sum_parts(s), book(s, HEAD);
        };
        walk.phase([&](int s) { start_clock(s), embed(s), book(s, EMBEDDING), go_on(s, 0); });
        for (size_t i = 0; i < count; i++) {
            const Layer& layer = layers_[i];
            if (layer.pooled) return answer_one(walk, layer);
            if (!layer.heads) continue;
            walk.phase([&](int s) { start_clock(s), attend_all(layer, s), book(s, ATTENTION); });
            walk.phase([&](int s) { start_clock(s), transform(layer, s), go_on(s, i + 1); });
        }
        walk.phase([&](int s) { start_clock(s), take_mean(s), classify(s, own_[s].mean), book(s, HEAD); });
    }

    void answer_one(Team::Walk& walk, const Layer& layer) {
        if (layer.heads) {
            walk.phase([&](int s) { start_clock(s), attend_from_mean(layer, s), book(s, ATTENTION); });
            walk.phase([&](int s) {
                start_clock(s), some_outputs(layer.context, layer.head_edges, context_, s), book(s, ATTENTION);
            });
        }
        const auto found = [&](int s) {
            Own& own = own_[s];
            if (!layer.heads) take_mean(s);
            norm_row(own.mean, layer.heads ? summed_ : layer.attention_bias, layer.after_attention, is_.hidden, own.row,
                     own.bytes, own.scale);
            book(s, NORM);
        };
        if (layer.neurons) {
            walk.phase([&](int s) { start_clock(s), found(s), expand_one(layer, s), book(s, FEED_FORWARD); });
            walk.phase([&](int s) {
                start_clock(s), some_outputs(layer.down, layer.neuron_edges, grown_, s), book(s, FEED_FORWARD);
            });
        }
        walk.phase([&](int s) {
            Own& own = own_[s];
            start_clock(s);
            if (!layer.neurons) found(s);
            norm_row(own.row, layer.neurons ? summed_ : layer.neuron_bias, layer.after_neurons, is_.hidden, own.row,
                     own.bytes, own.scale);
            book(s, NORM);
            classify(s, own.row);
            book(s, HEAD);
        });
    }

    int first_row(int s) const { return share(tokens_, s, is_.threads); }

    void embed(int s) {
        const int hidden = is_.hidden, first = first_row(s), end = first_row(s + 1);
        for (int r = first; r < end; r++)  // any row of the table may be far away
            for (int i = 0; i < hidden; i += 64) __builtin_prefetch(word_ + size_t(ids_[r]) * hidden + i);
        for (int r = first; r < end; r++) {
            const size_t at = size_t(r) * hidden;
            const int8_t* word = word_ + size_t(ids_[r]) * hidden;
            for (int i = 0; i < hidden; i += LANES)
                store(hidden_ + at + i, to_floats(load(word + i)) * word_scale_[ids_[r]]);
            norm_row(hidden_ + at, position_ + at, after_embedding_, hidden, hidden_ + at, bytes_ + at, scale_ + r);
        }
    }

    // All of a layer but its attention proper, for the rows of a slice: context [rows][heads] to hidden [rows].
    void transform(const Layer& layer, int s) {
        const int hidden = is_.hidden, first = first_row(s), rows = first_row(s + 1) - first;
        float *row = hidden_ + size_t(first) * hidden, *summed = summed_ + size_t(first) * hidden;
        uint8_t* bytes = bytes_ + size_t(first) * hidden;
        const auto norm = [&](bool module, const float* bias, const Norm& norm) {
            for (int r = 0; r < rows; r++) {
                const size_t at = size_t(r) * hidden;
                norm_row(row + at, module ? summed + at : bias, norm, hidden, row + at, bytes + at, scale_ + first + r);
            }
        };
        // the second product of a module, group after group
        const auto second = [&](const std::vector<Packed>& parts, const std::vector<int>& edges, const Inside& in) {
            for (size_t g = 0; g < parts.size(); g++)
                product(parts[g],
                        {in.bytes + size_t(first) * in.width + edges[g], in.width, in.scale + g * tokens_ + first},
                        rows, {summed, hidden, g ? summed : nullptr});
        };
        if (layer.heads) second(layer.context, layer.head_edges, context_), book(s, ATTENTION);
        norm(layer.heads, layer.attention_bias, layer.after_attention);
        book(s, NORM);
        if (layer.neurons) {
            for (int g = 0; g < layer.neuron_groups(); g++)
                expand(layer, g, {bytes, hidden, scale_ + first}, first, rows, tokens_, own_[s].scratch);
            second(layer.down, layer.neuron_edges, grown_);
            book(s, FEED_FORWARD);
        }
        norm(layer.neurons, layer.neuron_bias, layer.after_neurons);
        book(s, NORM);
    }

    // A group of neurons of some rows, out of `all` rows.
    void expand(const Layer& layer, int g, Rounded a, int first, int rows, int all, float* scratch) {
        const int edge = layer.neuron_edges[g], width = layer.neuron_edges[g + 1] - edge;
        product(layer.up[g], a, rows, {scratch, width, nullptr, true});
        for (int r = 0; r < rows; r++)
            round_gelu_row(scratch + size_t(r) * width, width, grown_.bytes + size_t(first + r) * grown_.width + edge,
                           grown_.scale + size_t(g) * all + first + r);
    }

    void attend_all(const Layer& layer, int s) {
        const int size = layer.size, groups = layer.head_groups();
        for (int g = share(groups, s, is_.threads); g < share(groups, s + 1, is_.threads); g++) {
            const int edge = layer.head_edges[g], width = layer.head_edges[g + 1] - edge;
            float* projected = own_[s].scratch;
            float* context = projected + size_t(tokens_) * width * 3;
            float* turned = context + size_t(tokens_) * width;
            float* scores = turned + QUERIES * size;
            product(layer.projections[g], {bytes_, is_.hidden, scale_}, tokens_, {projected, 3 * width});
            for (int c = 0; c < width; c += size)
                attend(projected + c, projected + width + c, projected + 2 * width + c, 3 * width, tokens_, size,
                       turned, scores, context + c, width);
            for (int r = 0; r < tokens_; r++)
                round_row(context + size_t(r) * width, width, context_.bytes + size_t(r) * context_.width + edge,
                          context_.scale + size_t(g) * tokens_ + r);
        }
    }

    // One query, the mean of all rows. Its scores are q . (K x) = (K' q) . x and its context is V applied to the
    // weighted mean of all x, so no row is projected: each head's key and value matrices are read once. The bias of the
    // keys adds the same to all scores, which the softmax takes off again.
    void attend_from_mean(const Layer& layer, int s) {
        const int hidden = is_.hidden, size = layer.size, groups = layer.head_groups();
        const int begin = layer.head_edges[share(groups, s, is_.threads)];
        const int width = layer.head_edges[share(groups, s + 1, is_.threads)] - begin, heads = width / size;
        const int wide = padded(heads), from = begin / size;
        const Own& own = own_[s];
        float* x = own.scratch;
        float* wanted = x + size_t(tokens_) * hidden;
        float* mixed = wanted + heads * hidden;
        float* scores = mixed + heads * hidden;
        float* query = scores + tokens_ * wide;
        float* context = query + width;
        take_mean(s);
        round_row(own.mean, hidden, own.bytes, own.scale);
        // the rows as their bytes have them, which is a quarter of what would have to come from other cores
        for (int t = 0; t < tokens_; t++)
            for (int i = 0; i < hidden; i += LANES)
                store(x + t * hidden + i, to_floats(load(bytes_ + t * hidden + i) - ZERO) * scale_[t]);
        for (int h = 0; h < heads; h++) {
            float* q = query + h * size;
            product(layer.queries[from + h], {own.bytes, hidden, own.scale}, 1, {q, size});
            for (int d = 0; d < size; d++) q[d] *= layer.key_scale[begin + h * size + d];
        }
        for (int h = 0; h < heads; h++) {
            round_row(query + h * size, size, own.bytes, own.scale);
            product(layer.keys[from + h], {own.bytes, size, own.scale}, 1, {wanted + h * hidden, hidden});
            for (int t = 0; t < tokens_; t++) {
                const float *a = wanted + h * hidden, *b = x + t * hidden;
                scores[t * wide + h] = sum(sum_of(hidden, [&](int i) { return load(a + i) * load(b + i); }));
            }
        }
        softmax(scores, tokens_, wide);
        float_product({scores, 1, wide}, x, hidden, tokens_, heads, hidden / LANES, mixed, hidden);
        for (int h = 0; h < heads; h++) {
            round_row(mixed + h * hidden, hidden, own.bytes, own.scale);
            product(layer.values[from + h], {own.bytes, hidden, own.scale}, 1, {context + h * size, size});
        }
        for (int g = share(groups, s, is_.threads); g < share(groups, s + 1, is_.threads); g++) {
            const int edge = layer.head_edges[g];
            round_row(context + edge - begin, layer.head_edges[g + 1] - edge, context_.bytes + edge,
                      context_.scale + g);
        }
    }

    void expand_one(const Layer& layer, int s) {
        const int groups = layer.neuron_groups();
        for (int g = share(groups, s, is_.threads); g < share(groups, s + 1, is_.threads); g++)
            expand(layer, g, {own_[s].bytes, is_.hidden, own_[s].scale}, 0, 1, 1, own_[s].scratch);
    }

    // The second product of a module of a pooled layer: the outputs of a slice.
    void some_outputs(const std::vector<Packed>& parts, const std::vector<int>& edges, const Inside& in, int s) {
        const int panels = (is_.hidden / LANES + PANEL - 1) / PANEL;
        const int first = share(panels, s, is_.threads) * PANEL;
        const int end = std::min(share(panels, s + 1, is_.threads) * PANEL, is_.hidden / LANES);
        for (size_t g = 0; g < parts.size(); g++)
            product(parts[g], first, end, {in.bytes + edges[g], in.width, in.scale + g}, 1,
                    {summed_, is_.hidden, g ? summed_ : nullptr});
    }

    // Rows are summed up in the same four parts by any number of threads: each by the slice that has all of its rows,
    // if one has, else by all who want the mean.
    int owner(int part) const {
        for (int s = 0; s < is_.threads; s++)
            if (first_row(s) <= share(tokens_, part, PARTS) && share(tokens_, part + 1, PARTS) <= first_row(s + 1))
                return s;
        return -1;
    }
    void sum_part(int part, float* to) const {
        const int first = share(tokens_, part, PARTS), end = share(tokens_, part + 1, PARTS);
        for (int i = 0; i < is_.hidden; i += LANES) {
            Floats total = {};
            for (int r = first; r < end; r++) total += load(hidden_ + size_t(r) * is_.hidden + i);
            store(to + i, total);
        }
    }
    void sum_parts(int s) {
        for (int part = 0; part < PARTS; part++)
            if (owner(part) == s) sum_part(part, part_ + part * is_.hidden);
    }
    void take_mean(int s) {
        float *mean = own_[s].mean, *other = own_[s].row;
        for (int part = 0; part < PARTS; part++) {
            const bool summed = owner(part) >= 0;
            const float* found = summed ? part_ + part * is_.hidden : other;
            if (!summed) sum_part(part, other);
            for (int i = 0; i < is_.hidden; i += LANES)
                store(mean + i, part ? load(mean + i) + load(found + i) : load(found + i));
        }
        for (int i = 0; i < is_.hidden; i += LANES) store(mean + i, load(mean + i) / float(tokens_));
    }

    void classify(int s, const float* x) {
        const int hidden = is_.hidden, strips = padded(is_.labels) / LANES;
        for (int strip = share(strips, s, is_.threads); strip < share(strips, s + 1, is_.threads); strip++) {
            const float* weight = classifier_ + size_t(strip) * hidden * LANES;
            Floats sums[4] = {};  // in turn: each addition waits for the one before it
            for (int k = 0; k < hidden; k += 4)
                for (int i = 0; i < 4; i++) sums[i] += x[k + i] * load(weight + size_t(k + i) * LANES);
            const Floats found = (sums[0] + sums[1]) + (sums[2] + sums[3]) + load(classifier_bias_ + strip * LANES);
            memcpy(logits_ + strip * LANES, &found, std::min(LANES, is_.labels - strip * LANES) * sizeof(float));
        }
    }

    const Sizes is_;
    Arena arena_;
    const int8_t* word_;
    const float *word_scale_, *position_, *classifier_, *classifier_bias_;
    Norm after_embedding_;
    std::vector<Layer> layers_;
    int64_t each_row_ = 0, once_ = 0;  // multiplications for each token, and those of a pooled layer

    // What a call is about, and what it works in: rows of `hidden` numbers, also rounded; what a module adds to them;
    // sums of rows; what goes into the second products of a module. Rows are as wide in each layer, so that a thread
    // that is a layer ahead writes to rows of its own only.
    const int32_t* ids_ = nullptr;
    int tokens_ = 0;
    float* logits_ = nullptr;
    bool timed_ = false;
    float *hidden_, *summed_, *scale_, *part_;
    uint8_t* bytes_;
    Inside context_, grown_;
    std::vector<Own> own_;

    std::mutex one_call_;
    Team team_;  // last: its threads end before what they work on
};

}  // namespace

// ---- The calls from outside, see native.py.

#define EXPORTED extern "C" __attribute__((visibility("default")))

// sizes: threads, hidden, vocabulary, longest row, labels, layers; of each layer heads, head size, neurons, pooled.
// tensors: in the order of native.py; they are copied. Returns nullptr when memory or threads are short.
EXPORTED void* plimsoll_open(const int64_t* sizes, float epsilon, const void* const* tensors) {
    try {
        return new Session(sizes, epsilon, tensors);
    } catch (const std::exception&) {
        return nullptr;
    }
}

EXPORTED int plimsoll_row(void* session, const int32_t* ids, int tokens, float* logits) {
    return static_cast<Session*>(session)->row(ids, tokens, logits);
}

// As plimsoll_row; adds the seconds of embedding, attention, feed-forward, norm and head to spent[5].
EXPORTED int plimsoll_timed_row(void* session, const int32_t* ids, int tokens, float* logits, double* spent) {
    return static_cast<Session*>(session)->timed_row(ids, tokens, logits, spent);
}

EXPORTED void plimsoll_close(void* session) { delete static_cast<Session*>(session); }
