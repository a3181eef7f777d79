"""Networks of Hugging Face's transformers from a config, small, with their own initialization and no dropout.

A study file names the kind (`hugging_face:causal_lm`), the model type (`of = "llama"`) and the fields of its config as
the model's arguments; what a network has to know of its data (`vocabulary`, `length`, `channels`, `outputs`, `size`)
comes from the data entry of the file. Nothing is downloaded.
"""

# ruff: noqa: D102  (a forward is described by its class)

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_DROPOUTS = (
    "dropout",
    "hidden_dropout_prob",
    "hidden_dropout",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "activation_dropout",
    "classifier_dropout",
    "classifier_dropout_prob",
    "classifier_dropout_rate",
    "dropout_rate",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "summary_last_dropout",
    "drop_path_rate",
    "drop_connect_rate",
    "feat_proj_dropout",
    "final_dropout",
    "layerdrop",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "embedding_dropout",
    "mlp_dropout",
    "conformer_conv_dropout",
    "conv_dropout",
)
"""Fields of configs that leave something out at random; each model type has some of them."""


def _config(of: str, fields: dict[str, Any]) -> Any:
    """Returns a config of a model type, without dropout, whose special tokens lie within its vocabulary."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(of, **fields)
    for name in _DROPOUTS:
        if isinstance(getattr(config, name, None), float):
            setattr(config, name, 0.0)
    for name in ("apply_spec_augment", "use_cache"):
        if hasattr(config, name):
            setattr(config, name, False)
    return config


def _tokens(vocabulary: int) -> dict[str, Any]:
    """Returns special tokens for characters: the last code of the vocabulary stands for all of them, none pads."""
    return {"vocab_size": vocabulary, "bos_token_id": vocabulary - 1, "eos_token_id": vocabulary - 1}


def causal_lm(of: str, vocabulary: int, length: int, **fields: Any) -> nn.Module:
    """Returns a causal language model; its output holds logits [n, length, vocabulary].

    Args:
        of: the model type, such as "gpt2", "llama" or "mamba".
        vocabulary: tokens.
        length: of a window; for those that keep a table of positions.
        **fields: of the type's config.
    """
    from transformers import AutoModelForCausalLM

    config = _config(of, {**_tokens(vocabulary), "pad_token_id": None, "max_position_embeddings": length, **fields})
    if config.model_type == "bert":
        config.is_decoder = True
    return AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return]


def text_classifier(of: str, vocabulary: int, length: int, outputs: int, **fields: Any) -> nn.Module:
    """Returns an encoder that tells which text a window of characters is from; its output holds logits [n, outputs].

    Args:
        of: the model type, such as "bert" or "deberta-v2".
        vocabulary: tokens; one more stands for padding, and there is none.
        length: of a window.
        outputs: classes.
        **fields: of the type's config.
    """
    from transformers import AutoModelForSequenceClassification

    known = {"vocab_size": vocabulary + 1, "pad_token_id": vocabulary, "max_position_embeddings": length}
    config = _config(of, {**known, "num_labels": outputs, **fields})
    return AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-any-return]


def image_classifier(of: str, channels: int, outputs: int, size: int, **fields: Any) -> nn.Module:
    """Returns a classifier of images [n, channels, size, size]; its output holds logits [n, outputs].

    Args:
        of: the model type, such as "vit", "convnext" or "swin".
        channels: of an image.
        outputs: classes.
        size: pixels on a side.
        **fields: of the type's config.
    """
    from transformers import AutoModelForImageClassification

    config = _config(of, {"image_size": size, "num_channels": channels, "num_labels": outputs, **fields})
    return AutoModelForImageClassification.from_config(config)  # type: ignore[no-any-return]


def audio_classifier(of: str, features: int, steps: int, outputs: int, **fields: Any) -> nn.Module:
    """Returns a speech model that classifies a series [n, steps, features].

    Args:
        of: the model type: "wav2vec2" and its kin take one feature as a wave, "whisper" and
            "audio-spectrogram-transformer" take the features as a spectrogram's bands.
        features: at each step.
        steps: of a series.
        outputs: classes.
        **fields: of the type's config.
    """
    from transformers import AutoModelForAudioClassification

    known: dict[str, Any] = {"num_labels": outputs}
    if of == "whisper":
        known |= {"num_mel_bins": features, "max_source_positions": steps // 2}
    if of == "audio-spectrogram-transformer":
        known |= {"num_mel_bins": features, "max_length": steps}
    config = _config(of, {**known, **fields})
    return Spoken(AutoModelForAudioClassification.from_config(config), of)


class Spoken(nn.Module):
    """A speech model in whose own shape a series [n, steps, features] is put; logits as [n, classes]."""

    def __init__(self, model: nn.Module, of: str) -> None:
        super().__init__()
        self.model = model
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        if self.of == "whisper":
            return self.model(input_features=x.transpose(1, 2)).logits
        if self.of == "audio-spectrogram-transformer":
            return self.model(input_values=x).logits
        if self.of == "wav2vec2-bert":
            return self.model(input_features=x).logits
        return self.model(input_values=x.flatten(1)).logits


class Continued(nn.Module):
    """An encoder reads the first half of a window, a decoder predicts the second; logits as [n, half, vocabulary]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: Tensor) -> Tensor:
        read, written = codes.chunk(2, dim=1)
        logits: Tensor = self.model(input_ids=read, decoder_input_ids=written).logits
        return logits


def encoder_decoder(of: str, vocabulary: int, length: int, **fields: Any) -> nn.Module:
    """Returns an encoder-decoder that goes on where the first half of a window ends.

    Args:
        of: the model type, such as "t5" or "bart".
        vocabulary: tokens; one more stands for padding, and there is none.
        length: of a window, both halves.
        **fields: of the type's config.
    """
    from transformers import AutoModelForSeq2SeqLM

    known = {"vocab_size": vocabulary + 1, "pad_token_id": vocabulary, "max_position_embeddings": length}
    config = _config(of, {**known, "decoder_start_token_id": vocabulary - 1, "eos_token_id": vocabulary - 1, **fields})
    return Continued(AutoModelForSeq2SeqLM.from_config(config))
