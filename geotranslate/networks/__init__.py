"""The tensor half: generators, discriminators and their normalization, for any number of bands."""
