// Program's attention: how a step's queries are cut into items, and how their partials are merged.
#include <algorithm>

#include "program.h"

namespace octavo {

// Spans [*first, returned) hold every key that the token may see.
int Program::spans_of(const Step& step, int group, int token, int* first) const {
    int position = step.positions[token];
    *first = std::max(0, position - groups_[group].window + 1) / SPAN;
    return position / SPAN + 1;
}

void Program::plan_attention(const Step& step) {
    for (size_t g = 0; g < groups_.size(); ++g)
        if (group_heads_[g] > 0) plan_group(step, (int)g);
}

// Queries of a sequence go in tiles; a lone tile over a long past is cut by spans, so that there is
// something to do for everyone.
void Program::plan_group(const Step& step, int g) {
    const Group& group = groups_[g];
    GroupPlan& plan = plans_[g];
    plan.items.clear();
    plan.partials.assign(step.tokens, NOWHERE);
    int heads = group_heads_[g] / group.kv_heads, most = std::max(1, ITEM_ROWS / heads);
    int tiles = 0;
    for (int s = 0; s < step.sequences; ++s)
        tiles += ceil_div(step.starts[s + 1] - step.starts[s], most);
    bool split = threads_ > 1 && tiles * group.kv_heads < 4 * threads_;
    size_t floats = 0;
    for (int s = step.sequences - 1; s >= 0; --s) {
        int tokens = step.starts[s + 1] - step.starts[s];
        for (int query = (ceil_div(tokens, most) - 1) * most; query >= 0; query -= most) {
            int queries = std::min(most, tokens - query), token = step.starts[s] + query, first,
                none;
            spans_of(step, g, token, &first);
            int last = spans_of(step, g, token + queries - 1, &none);
            bool cut = split && queries == 1 && last - first > 1;
            if (cut) {
                plan.partials[token] = floats;
                floats += (last - first) * group_heads_[g] * partial_floats(g);
            }
            for (int head = 0; head < group.kv_heads; ++head)
                for (int span = first; span < last; span = cut ? span + 1 : last)
                    plan.items.push_back(
                        {s, head, query, queries, span, cut ? span + 1 : last, cut});
        }
    }
    if (plan.room.size() < floats) plan.room.resize(floats);
}

void Program::run_item(const Stage& stage, const Item& item, int thread) {
    const Step& step = *step_;
    const Group& group = groups_[stage.group];
    int heads = stage.heads / group.kv_heads, rows = item.queries * heads;
    int dim = group.head_dim, token = step.starts[item.sequence] + item.query;
    Rows q = buffers_[stage.x].rows(), out = buffers_[stage.out].rows();
    SpanWork work = {
        .table = step.tables[stage.group] + (size_t)item.sequence * step.table_widths[stage.group],
        .pages = group.layer(stage.layer),
        .head_dim = dim,
        .heads = heads,
        .queries = item.queries,
        .position = step.positions[token],
        .window = group.window,
        .span = item.first_span,
        .q = q.row(token) + item.head * heads * dim,
        .q_stride = q.stride,
    };
    work.pages.data += item.head * work.pages.head;

    auto& scratch = scratch_[thread];
    size_t scores = (size_t)rows * SPAN, mixed = (size_t)rows * dim;
    if (scratch.size() < scores + 2 * mixed) scratch.resize(scores + 2 * mixed);
    Partial next[MOST_SHARING], all[MOST_SHARING];
    for (int r = 0; r < rows; ++r) {
        next[r] = {0, 0, scratch.data() + scores + r * dim};
        all[r] = {0, 0, scratch.data() + scores + mixed + r * dim};
    }
    if (item.split) {
        GroupPlan& plan = plans_[stage.group];
        int first;
        int spans = spans_of(step, stage.group, token, &first) - first;
        for (int r = 0; r < rows; ++r) {
            size_t place = (size_t)(item.head * heads + r) * spans + item.first_span - first;
            float* to =
                plan.room.data() + plan.partials[token] + place * partial_floats(stage.group);
            next[r].mixed = to + 2;
        }
        kernels_.attend_span(work, scratch.data(), next);
        for (int r = 0; r < rows; ++r)
            next[r].mixed[-2] = next[r].largest, next[r].mixed[-1] = next[r].total;
        return;
    }
    for (; work.span < item.last_span; ++work.span)
        if (kernels_.attend_span(work, scratch.data(), next))
            for (int r = 0; r < rows; ++r) kernels_.merge(all[r], next[r], dim);
    for (int r = 0; r < rows; ++r)
        kernels_.finish(all[r], dim,
                        out.row(token + r / heads) + (item.head * heads + r % heads) * dim);
}

void Program::merge_partials(const RowOp& op, int token) {
    GroupPlan& plan = plans_[op.size];
    if (plan.partials[token] == NOWHERE) return;
    int first, dim = groups_[op.size].head_dim;
    int spans = spans_of(*step_, op.size, token, &first) - first;
    float* at = plan.room.data() + plan.partials[token];
    for (int head = 0; head < group_heads_[op.size]; ++head) {
        Partial all = {at[0], at[1], at + 2};
        for (int span = 1; span < spans; ++span) {
            float* next = at + span * partial_floats(op.size);
            kernels_.merge(all, {next[0], next[1], next + 2}, dim);
        }
        kernels_.finish(all, dim, buffers_[op.out].rows().row(token) + head * dim);
        at += spans * partial_floats(op.size);
    }
}

}  // namespace octavo
