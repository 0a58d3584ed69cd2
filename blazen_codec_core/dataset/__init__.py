"""Whole datasets through a codec: recordings to shards of tokens, and back.

Data flows `runner -> executors -> jobs -> items, rows, shards`. `runner` plans and keeps the state
of the run. An executor spreads the shards over processes or machines, and a job does one shard and writes it whole.
A shard depends on its recordings and on what
was asked for alone, so that it does not matter who does it, or how often.
"""
