"""What is done to an update before it leaves its site, in the order that the site chose."""

from .feedback import ErrorFeedback
from .pipeline import FilteredDelta, apply_filters, run_filters

__all__ = ["ErrorFeedback", "FilteredDelta", "apply_filters", "run_filters"]
