"""The process of a local worker: `python -m keras_attn.training.bulk.process FD`."""

import multiprocessing.connection
import sys

from keras_attn.training.noise import hide_noise

if __name__ == "__main__":
    hide_noise()
    from keras_attn.training.bulk.worker import serve

    with multiprocessing.connection.Connection(int(sys.argv[1])) as connection:
        serve(connection)
