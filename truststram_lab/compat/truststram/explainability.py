"""``from truststram.explainability import SHAPExplainer``"""

from truststram_lab.explainability import BaseExplainer, LIMEExplainer, SHAPExplainer

__all__ = ["BaseExplainer", "LIMEExplainer", "SHAPExplainer"]
