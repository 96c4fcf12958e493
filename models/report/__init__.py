"""Evidence for a person to look at: annotated videos, heatmaps and the HTML report."""
