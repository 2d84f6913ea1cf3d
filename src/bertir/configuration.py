"""What bert_config.json may say: google-research/bert builds a graph of any size before it looks at the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Far more than any BERT has (24 layers, 16 heads); each layer takes run_classifier.py a tenth of a second.
MOST_LAYERS = 500
# A dimension of a tensor in TensorFlow's graphs, some of which count in 32 bits.
MOST = (1 << 31) - 1
_INTEGERS = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)
_REQUIRED = frozenset({"max_position_embeddings", "num_hidden_layers", "vocab_size"})
_NUMBERS = ("attention_probs_dropout_prob", "hidden_dropout_prob", "initializer_range")
# Of the patched modeling.py (patches/0010).
_ACTIVATIONS = ("gelu", "gelu_erf", "linear", "relu", "tanh")


def google_problems(value: Mapping[str, Any]) -> list[str]:
    """Say what of a bert_config.json google-research/bert could make no graph of; what isn't there has a default."""
    problems = integer_problems(value)
    hidden, heads = value.get("hidden_size", 768), value.get("num_attention_heads", 12)
    if not problems and hidden % heads:
        problems.append(f"its hidden_size {hidden} is not a multiple of its num_attention_heads {heads}")
    for name in _NUMBERS:
        number = value.get(name, 0)
        if not isinstance(number, int | float) or not 0 <= number <= 1:  # nor is NaN
            problems.append(f"its {name} is {_shown(number)}, no number from 0 to 1")
    activation = value.get("hidden_act", "gelu")
    # The script lowers the case.
    if not isinstance(activation, str) or activation.lower() not in _ACTIVATIONS:
        problems.append(f"its hidden_act is {_shown(activation)}, none of {', '.join(_ACTIVATIONS)}")
    return problems


def integer_problems(value: Mapping[str, Any]) -> list[str]:
    """Say which sizes aren't there or can't be one."""
    problems = []
    for name in _INTEGERS:
        if name not in value and name not in _REQUIRED:
            continue
        number = value.get(name)
        most = MOST_LAYERS if name == "num_hidden_layers" else MOST
        if type(number) is not int or not 1 <= number <= most:
            problems.append(f"its {name} is {_shown(number)}")
    return problems


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > MOST:
        return "an integer of more than 31 bits"  # Python writes out none of over 4,300 digits
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"  # noqa: PLR2004
