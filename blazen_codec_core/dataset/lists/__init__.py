"""Lists of recordings in the shapes that the field writes them in.

Data flows `listing -> kaldi | shapes -> columns`, over what `records` reads: a record is a row of a list, a place is where its
recording is, whole or in part.
"""
