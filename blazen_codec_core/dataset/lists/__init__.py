"""Readers for lists of recordings in common formats.

Data flows `listing -> kaldi | shapes -> columns`. A `Record` is a row of a list. A `Place` is the location of its recording, or
of a part of it.
"""
