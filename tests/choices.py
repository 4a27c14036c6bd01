"""A token's choice written in NumPy as the formulas read, and the native sampler's.

masks                   -inf where a token is not allowed, before everything else
penalties, biases       in float32, as the logits are
probability             e^(logit / temperature), in double precision from here on
cuts                    min_p, then top_k, then top_p of what is left
choice                  the largest logit / temperature + noise(seed, position, token id)

from choices import choice, logits_of, one         (tests/ is on the path)
"""

import numpy as np

from octavo.kernels.reference import with_maxima
from octavo.sampling.sampler import sample


def noise_of(seed, position, tokens):
    """Gumbel noise of tokens, each of a uniform number in (0, 1) whose 32 bits hash the three: seed
    and position make a key (splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", 2014, figure 16), the token goes through MurmurHash3's finisher with either half
    of it."""
    long, short = 2**64 - 1, 2**32 - 1
    tokens = np.asarray(tokens, np.uint64)

    def mix(x):
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & long
        x = (x ^ x >> 27) * 0x94D049BB133111EB & long
        return x ^ x >> 31

    def scatter(x):
        x = (x ^ x >> np.uint64(16)) * np.uint64(0x85EBCA6B) & np.uint64(short)
        x = (x ^ x >> np.uint64(13)) * np.uint64(0xC2B2AE35) & np.uint64(short)
        return x ^ x >> np.uint64(16)

    golden = 0x9E3779B97F4A7C15
    key = mix(mix(seed + golden & long) + position & long)
    bits = scatter(scatter(tokens ^ np.uint64(key & short)) ^ np.uint64(key >> 32))
    return -np.log(-np.log((bits + 0.5) * 2.0**-32))


def adjusted(logits, row):
    p, out = row.params, logits.copy()
    if row.allowed is not None:
        bits = np.unpackbits(row.allowed.view(np.uint8), bitorder="little")[: len(out)]
        out[bits == 0] = -np.inf
    for token in set(row.prompt_ids) | set(row.output_ids):
        x = out[token]
        out[token] = (
            x / np.float32(p.repetition_penalty) if x > 0 else x * np.float32(p.repetition_penalty)
        )
        count = np.float32(list(row.output_ids).count(token))
        if count:
            out[token] -= np.float32(p.presence_penalty) + np.float32(p.frequency_penalty) * count
    for token, bias in p.logit_bias.items():
        out[token] += np.float32(bias)
    return out


def kept(logits, p):
    """Ids that the cuts leave, best first. Parameters are single precision."""
    scaled = logits.astype(float) / float(np.float32(p.temperature))
    weights = np.exp(scaled - scaled.max())
    order = np.lexsort((np.arange(len(logits)), -logits))
    order = order[weights[order] >= float(np.float32(p.min_p))][: p.top_k]
    if p.top_p < 1:
        reached = np.cumsum(weights[order]) >= float(np.float32(p.top_p)) * weights[order].sum()
        order = order[: np.argmax(reached) + 1]
    return order


def choice(logits, row):
    logits = adjusted(logits, row)
    if row.params.temperature == 0:
        return int(np.argmax(logits))  # the first of the largest
    ids, temperature = kept(logits, row.params), float(np.float32(row.params.temperature))
    seed = row.seed % 2**64
    ids = np.sort(ids)
    lifted = logits[ids].astype(float) / temperature + noise_of(seed, row.position, ids)
    return int(ids[np.argmax(lifted)])


def logits_of(vocabulary, seed, spread=4.0):
    """Rounded to a quarter, so that some are equal."""
    return (np.random.default_rng(seed).normal(0, spread, vocabulary) * 4).round().astype(
        np.float32
    ) / np.float32(4)


def one(logits, row):
    given = with_maxima(logits[None])
    before = given.values.copy(), given.maxima.copy()
    (sampled,) = sample(given, [row])
    np.testing.assert_array_equal(given.values, before[0])  # penalties and all are taken back
    np.testing.assert_array_equal(given.maxima, before[1])
    return sampled
