"""The demo on drawn people: training its weights, measuring them, showing its videos."""
