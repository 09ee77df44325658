"""Update rules: how a step is made, by name. One at a time: a run has one rule."""

from .bilevel import Bilevel, meta_gradients
from .dot import DOT, DOTSGD
from .rule import Descend, UpdateRule

UPDATES: dict[str, type[UpdateRule]] = {
    "descend": Descend,
    "dot": DOT,
    "bilevel": Bilevel,
}
"""Name -> class. Its keyword-only arguments are the rule's options."""

__all__ = ["DOT", "DOTSGD", "UPDATES", "Bilevel", "Descend", "UpdateRule", "meta_gradients"]
