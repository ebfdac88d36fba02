"""Mimi (Defossez et al., 2024), a neural codec, through transformers from a local folder."""

from sasv.vocoders.neural_codec import NeuralCodec


class Mimi(NeuralCodec):
    """Mimi; ``weights`` is a folder as saved by transformers."""

    model = "MimiModel"
    licence = "CC BY 4.0 (weights by Kyutai); Apache-2.0 (transformers)"
    source = "huggingface.co/kyutai/mimi"
