"""The networks that people deploy, as a family of `clipstep bench-models`: each file has the factories of one package or kind of network."""
