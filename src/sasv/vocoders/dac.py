"""DAC (Kumar et al., NeurIPS 2023), a neural codec, through transformers from a local folder."""

from sasv.vocoders.neural_codec import NeuralCodec


class Dac(NeuralCodec):
    """DAC; ``weights`` is a folder as saved by transformers."""

    model = "DacModel"
    licence = "MIT (weights by Descript); Apache-2.0 (transformers)"
    source = "huggingface.co/descript/dac_16khz"
