"""Whole datasets through a codec: recordings to shards of tokens, and back.

Data flows `run -> local | cluster -> work -> items, rows, shards`: `run` plans and keeps the books, an engine spreads the shards
over processes or machines, `work` does one shard and writes it whole. A shard depends on its recordings and on what was asked for
alone, so that it does not matter who does it, or how often.
"""
