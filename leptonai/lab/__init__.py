"""The model SDK: small models that learn on a laptop. The modules named in the original articles re-export these."""
