"""How good a model is: measures, curves, calibration, slices, a paired comparison, drift. No torch needed."""
