"""EnCodec (Defossez et al., TMLR 2023), a neural codec, through transformers from a local
folder.
"""

from sasv.vocoders.neural_codec import NeuralCodec


class Encodec(NeuralCodec):
    """EnCodec; ``weights`` is a folder as saved by transformers."""

    model = "EncodecModel"
    licence = "CC BY-NC 4.0 (weights by Meta); Apache-2.0 (transformers)"
    source = "huggingface.co/facebook/encodec_24khz"
