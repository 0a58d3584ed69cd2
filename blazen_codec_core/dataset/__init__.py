"""Whole datasets through a codec: recordings to shards of tokens, and back.

Data flows `runner -> executors -> jobs -> items, rows, shards`. `runner` plans the run and keeps its state. An executor
distributes the shards over processes or machines. A job processes one shard and writes it atomically. A shard depends only on its
recordings and the settings, so any worker can make it, any number of times.
"""
