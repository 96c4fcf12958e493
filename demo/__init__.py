"""The demo on drawn people: its videos, its weights, and how both were made.

python -m demo.show       score the demo's videos with its weights (make demo)
python -m demo.evaluate   measure the weights on drawn videos that no training saw
python -m demo.choose     choose the demo's four videos by a rule
python -m demo.train      train the weights again, from nothing (make demo-train)
python -m demo.world      draw videos of people, with the truth about every box
"""
